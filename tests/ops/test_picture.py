"""The picture has the size that it says, shows what is unusual, and keeps matplotlib's globals out of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from ops.picture import draw_series

MINUTE = 60_000_000
START = 1_700_000_000_000_000


def pixels(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape of the picture and how many of its pixels have the colour of the marks."""
    picture = imread(path)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return picture.shape, int(((red > 0.8) & (green < 0.3) & (blue < 0.3)).sum())


@pytest.mark.parametrize("start", [0, START], ids=["positions", "instants"])
@pytest.mark.parametrize("anomalies", [[3], [0, 1, 2, 59], list(range(60))], ids=["one", "runs and ends", "all"])
def test_anomalies_are_marked(tmp_path: Path, start: int, anomalies: list[int]) -> None:
    step = MINUTE if start else 1
    times = [start + step * place for place in range(60)]
    values = [float(place % 7) - 3 for place in range(60)]
    marked, plain = tmp_path / "new" / "marked.png", tmp_path / "plain.png"
    draw_series(marked, title="A $series_1$", times=times, values=values, anomalies=anomalies, y_label="m/s")
    draw_series(plain, title="A $series_1$", times=times, values=values, anomalies=[], y_label="m/s")
    assert pixels(marked)[0][:2] == pixels(plain)[0][:2] == (700, 1600)
    assert pixels(plain)[1] == 0
    assert pixels(marked)[1] > 50


@pytest.mark.parametrize("values", [[5.0], [5.0] * 10, [1e150, -1e150], [0.0] * 5_000])
def test_odd_series_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "p.png"
    draw_series(path, title="t", times=list(range(len(values))), values=values, anomalies=[0], y_label="")
    assert pixels(path)[1] > 0


def test_the_same_series_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        draw_series(tmp_path / name, title="t", times=[1, 2], values=[1.0, 2.0], anomalies=[1], y_label="")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("times", "values", "anomalies", "text"),
    [
        ([1], [1.0, 2.0], [], "1 times and 2 values"),
        ([], [], [], "at least one"),
        ([1], [1.0], [1], "anomaly index 1 is outside of the 1 points"),
        ([1], [1.0], [-1], "anomaly index -1 is outside"),
    ],
)
def test_what_cannot_be_drawn(
    tmp_path: Path, times: list[int], values: list[float], anomalies: list[int], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        draw_series(tmp_path / "p.png", title="t", times=times, values=values, anomalies=anomalies, y_label="")
    assert not (tmp_path / "p.png").exists()


def test_no_global_figure_is_made() -> None:
    root = Path(__file__).parents[2]
    program = "import sys, ops.picture; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60).returncode == 0
