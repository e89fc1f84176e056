import pickle

import pytest
import torch

from tests.uncertainty.toys import statistics_of
from uncertainty import load_statistics, save_statistics
from uncertainty.activations import HeadStatistics
from uncertainty.statistics import ScoreStatistics


@pytest.fixture
def statistics():
    known = statistics_of(2, classes=5)
    head = HeadStatistics(
        7, torch.rand(3, dtype=torch.float64), torch.tensor([70000, 80000]), torch.tensor([90, 10])
    )
    return ScoreStatistics(known.members, known.joint, (head,) * 2, {"classes": list("abcde")})


def test_what_is_read_is_what_was_written(statistics, tmp_path):
    path = tmp_path / "new" / "file.pth"
    save_statistics(path, statistics)
    found = load_statistics(path)
    assert found.manifest == statistics.manifest
    for one, other in zip(
        (*found.members, found.joint), (*statistics.members, statistics.joint), strict=True
    ):
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.variance, other.variance)
        assert torch.equal(one.count, other.count)
    assert len(found.heads) == 2
    assert found.heads[0].pixels == 7
    assert torch.equal(found.heads[1].mean_features, statistics.heads[1].mean_features)
    assert found.heads[0].percentile(85) == statistics.heads[0].percentile(85)
    assert [entry.name for entry in path.parent.iterdir()] == ["file.pth"]


def test_another_manifest_replaces_its_own(statistics, tmp_path):
    save_statistics(tmp_path / "file", statistics, {"network": "abc", "split": "train"})
    assert load_statistics(tmp_path / "file").manifest == {"network": "abc", "split": "train"}


def test_an_absent_file(tmp_path):
    with pytest.raises(ValueError, match="none.pth do not exist; make them with --fit_score"):
        load_statistics(tmp_path / "none.pth")


def test_a_truncated_file(statistics, tmp_path):
    path = tmp_path / "file.pth"
    save_statistics(path, statistics)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"file.pth \({length} bytes\) is truncated or holds"):
            load_statistics(path)


def test_a_file_that_would_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("trapped",)

    (tmp_path / "file.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="holds no statistics"):
        load_statistics(tmp_path / "file.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_state": {}}, "holds no statistics of scores: it holds something else"),
        (torch.zeros(3), "it holds something else"),
        ({"format": "segdoubt score statistics 9"}, "its format is 'segdoubt score statistics 9'"),
    ],
)
def test_another_kind_of_file(content, message, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message):
        load_statistics(tmp_path / "file.pth")


def drop_joint(content):
    del content["joint"]


def drop_members(content):
    content["members"] = []


def cut_classes(content):
    content["members"][1]["count"] = torch.tensor([1, 2])


def spoil_sums(content):
    content["members"][0]["total"][2] = torch.nan


def drop_pixels(content):
    content["joint"]["count"].zero_()


def name_unknown(content):
    content["heads"][0]["width"] = 3


def shorten_histogram(content):
    content["heads"][1]["counts"] = torch.tensor([3])


def leave_histogram(content):
    content["heads"][1]["bins"] = torch.tensor([-1, 5])


def spoil_features(content):
    content["heads"][0]["mean_features"][0] = torch.inf


@pytest.mark.parametrize(
    "damage",
    [
        drop_joint,
        drop_members,
        cut_classes,
        spoil_sums,
        drop_pixels,
        name_unknown,
        shorten_histogram,
        leave_histogram,
        spoil_features,
    ],
)
def test_damaged_values(damage, statistics, tmp_path):
    path = tmp_path / "file.pth"
    save_statistics(path, statistics)
    content = torch.load(path, weights_only=True)
    damage(content)
    torch.save(content, path)
    with pytest.raises(ValueError, match="file.pth holds damaged statistics") as refusal:
        load_statistics(path)
    assert "\n" not in str(refusal.value)
