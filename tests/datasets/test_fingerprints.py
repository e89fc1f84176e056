from datasets.fingerprints import files_fingerprint


def test_names_sizes_order_and_heading_count_and_the_place_does_not(tmp_path):
    prints = set()
    for root in (tmp_path / "here", tmp_path / "there"):
        root.mkdir()
        paths = [root / name for name in ("a", "b")]
        for path, size in zip(paths, (3, 5), strict=True):
            path.write_bytes(b"x" * size)
        prints.add(files_fingerprint("voc train", paths, root))
    assert len(prints) == 1
    prints |= {
        files_fingerprint("voc val", paths, root),
        files_fingerprint("voc train", paths[::-1], root),
        files_fingerprint("voc train", paths[:1], root),
        files_fingerprint("voc train", paths, tmp_path / "elsewhere"),
    }
    paths[1].write_bytes(b"x" * 6)
    prints.add(files_fingerprint("voc train", paths, root))
    assert len(prints) == 6
