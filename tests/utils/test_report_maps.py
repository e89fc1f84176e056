import base64
import io
import re

import numpy as np
from PIL import Image

from tests.utils.result_files import write_result
from tests.utils.test_report_pages import UCE, report_on
from utils.report.maps import MOST_IMAGES, WIDTH, map_pictures
from utils.report.page import as_html


def write_panels(result, *names, size=(40, 3000)):
    """Panels of maps beside a result file, as a test with --scores writes them."""
    for name in names:
        path = result.with_suffix("") / f"{name}_uncertainty.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(path)


def test_the_first_panels_of_a_group_are_on_the_page(tmp_path):
    result = write_result(tmp_path, seed=1)
    write_panels(result, "town/c", "town/a", "town/b")
    write_result(tmp_path, seed=1, loss=UCE)
    report = report_on(tmp_path)
    pictures = list(map_pictures(report.summaries))
    assert [picture.image for picture in pictures] == ["town/a", "town/b"]
    assert len(pictures) == MOST_IMAGES
    page = as_html(report)
    (first, _) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(first))) as shown:
        assert shown.size[0] == WIDTH
    assert page.count("<h2>Maps of uncertainty</h2>") == 1
    assert ">town/a</p>" in page


def test_a_damaged_panel_is_passed_over(tmp_path, caplog):
    result = write_result(tmp_path, seed=1)
    write_panels(result, "b")
    (result.with_suffix("") / "a_uncertainty.png").write_bytes(b"no picture")
    assert [picture.image for picture in map_pictures(report_on(tmp_path).summaries)] == ["b"]
    assert "a_uncertainty.png is no picture" in caplog.text


def test_results_without_panels_have_no_maps(tmp_path):
    write_result(tmp_path, seed=1)
    assert "Maps of uncertainty" not in as_html(report_on(tmp_path))
