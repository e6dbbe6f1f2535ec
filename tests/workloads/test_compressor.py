"""What arrives of a compressed gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stalewise.errors import InputError
from stalewise.protocol import parse_compression
from stalewise.workloads.compressor import Compressor

RNG = np.random.default_rng(0)


def test_bfloat16_is_torchs():
    """Two bytes a value, rounded as PyTorch rounds; the packed gradient is what bytes_of says."""
    gradient = RNG.standard_normal(1000).astype(np.float32)
    how = parse_compression("bfloat16")
    compressor = Compressor(how, 1000)
    expected = torch.from_numpy(gradient).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(compressor.sent(0, gradient), expected)
    assert sum(part.nbytes for part in compressor.pack(0, gradient)) == how.bytes_of(1000) == 2000


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_top_k_loses_nothing(kept, seed):
    """What has arrived plus what is left out is the sum of the gradients, for each worker by itself; the largest are
    sent first."""
    rng, share = np.random.default_rng(seed), kept / 40
    how = parse_compression(f"top-k({share})")
    compressor = Compressor(how, 40)
    total, arrived = np.zeros((2, 40)), np.zeros((2, 40))
    for round_ in range(6):
        for worker in range(2):
            gradient = rng.standard_normal(40).astype(np.float32)
            if round_ == 0:
                payload = compressor.pack(worker, gradient)
                assert sum(part.nbytes for part in payload) == how.bytes_of(40)
                sent = compressor.unpack(payload)
                assert np.count_nonzero(sent) == how.kept(40)
                assert np.abs(gradient[sent == 0]).max(initial=0) <= np.abs(sent[sent != 0]).min()
            else:
                sent = compressor.sent(worker, gradient)
            total[worker] += gradient
            arrived[worker] += sent
    left = np.array([compressor._left[worker] for worker in range(2)])
    np.testing.assert_allclose(arrived + left, total, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [("zip", "compression must be one of none, bfloat16, top-k"), ("top-k(0)", "above 0 and at most 1, got 0"),
     ("top-k(2)", "got 2"), ("top-k", r"top-k takes \(share\)")],
)  # fmt: skip
def test_wrong_texts(text, message):
    """One line each."""
    with pytest.raises(InputError, match=message):
        parse_compression(text)
