import pytest

from datasets.id_lists import read_id_list


def listed(tmp_path, text):
    path = tmp_path / "train.txt"
    path.write_text(text, encoding="utf-8")
    return read_id_list(path)


def test_an_id_a_line_or_the_two_paths_of_one_id(tmp_path):
    assert listed(tmp_path, "2007_000032\n\n  2007_000039 \n") == ["2007_000032", "2007_000039"]
    both = "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n"
    assert listed(tmp_path, both) == ["2007_000032"]
    assert listed(tmp_path, "") == []
    assert listed(tmp_path, "img.001\nimages/img.002.JPG\n") == ["img.001", "img.002"]
    assert listed(tmp_path, "\ufeffa\nb\n") == ["a", "b"]


@pytest.mark.parametrize("line", ["2007_000032  1", "a.jpg b.png", "2007_000032 -1 x"])
def test_other_columns_are_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"train\.txt, line 2: two columns .* one is exp") as said:
        listed(tmp_path, f"2007_000039\n{line}\n")
    assert repr(line) in str(said.value)
    assert "\n" not in str(said.value)
