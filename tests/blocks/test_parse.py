"""Options as text are parsed, or refused with the right form."""

from __future__ import annotations

import pytest

from volseg.blocks import BlockSet, Box, format_zyx, parse_roi, parse_zyx
from volseg.errors import ConfigError, GridError


@pytest.mark.parametrize("text", ["16", "16,512", "a,b,c", "1,2,3,4", "1.5,2,3", ""])
def test_text_other_than_three_numbers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--block .* is not three whole numbers"):
        parse_zyx(text, "--block")


def test_a_triple_is_parsed_as_it_is_formatted() -> None:
    assert parse_zyx(format_zyx((16, 512, 528)), "--block") == (16, 512, 528)


def test_a_region_may_omit_bounds() -> None:
    assert parse_roi("2:4,:,5:", (6, 7, 8)) == Box((2, 0, 5), (4, 7, 8))


@pytest.mark.parametrize("text", ["2:4", "1:2,3:4,5", "a:b,:,:", "1:2:3,:,:"])
def test_text_other_than_a_region_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a region"):
        parse_roi(text, (6, 7, 8))


@pytest.mark.parametrize("text", ["0:7,:,:", "-1:3,:,:", ":,:,0:9"])
def test_a_region_beyond_the_volume_is_refused(text: str) -> None:
    with pytest.raises(GridError, match=r"--roi .* volume of shape \(6, 7, 8\)"):
        parse_roi(text, (6, 7, 8))


@pytest.mark.parametrize("text", ["3:3,:,:", "4:2,:,:"])
def test_an_empty_region_is_refused(text: str) -> None:
    with pytest.raises(GridError, match="--roi .* is empty"):
        parse_roi(text, (6, 7, 8))


def test_a_million_numbers_take_little_memory() -> None:
    done = BlockSet(range(0, 1_000_000, 2))
    assert len(done) == 500_000
    assert 999_998 in done
    assert 999_999 not in done
    assert sum(len(page) for page in done._pages.values()) < 140_000
