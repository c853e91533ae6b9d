"""The mask, with the compiled part and without it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.protocol.masking import apply_mask, mask_by_integers

masks = st.binary(min_size=4, max_size=4)


@given(st.binary(min_size=1, max_size=100), st.sampled_from([16_383, 16_384, 16_385, 40_000]) | st.integers(0, 100), masks)
def test_masking_twice_is_nothing(seed: bytes, size: int, mask: bytes) -> None:
    payload = (seed * size)[:size]
    assert apply_mask(payload, mask) == bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
    assert apply_mask(apply_mask(payload, mask), mask) == payload


@given(st.binary(max_size=300) | st.sampled_from([16_383, 16_384, 40_001]).map(bytes), masks)
def test_unmasking_is_the_same_without_the_compiled_part(payload: bytes, mask: bytes) -> None:
    assert mask_by_integers(payload, mask) == apply_mask(payload, mask) == mask_by_integers(memoryview(payload), bytearray(mask))
