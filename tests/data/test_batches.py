"""take: the rows of any index, scaled, against plain indexing and torchvision's ToTensor."""

import numpy as np
import pytest
import torch

from data.batches import take


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (0,)])
def test_images(shape: tuple[int, ...]) -> None:
    x = torch.arange(256, dtype=torch.uint8).repeat(3)[: 20 * 36].view(20, 1, 6, 6)
    index = torch.from_numpy(np.random.default_rng(0).integers(0, 20, shape))
    out = take(x, index)
    assert out.shape == (*shape, 1, 6, 6)
    assert out.dtype == torch.float32
    want = x.numpy()[index.numpy()].astype(np.float32) / np.float32(255)
    assert np.array_equal(out.numpy(), want)


def test_as_totensor_does() -> None:
    from PIL import Image
    from torchvision.transforms import ToTensor

    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for k in range(4):
        picture = Image.fromarray(x[k].permute(1, 2, 0).numpy())
        assert torch.equal(take(x, torch.tensor([k]))[0], ToTensor()(picture))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_keep_their_values(dtype: torch.dtype) -> None:
    x = torch.randn(10, 4, dtype=dtype)
    index = torch.tensor([[9, 0], [3, 3]])
    out = take(x, index)
    assert torch.equal(out, torch.stack([torch.stack([x[9], x[0]]), torch.stack([x[3], x[3]])]))
    assert out.dtype == dtype


def test_the_source_is_not_changed() -> None:
    x = torch.full((3, 1, 2, 2), 200, dtype=torch.uint8)
    take(x, torch.arange(3)).zero_()
    assert (x == 200).all()


def test_an_index_out_of_range_is_an_error() -> None:
    with pytest.raises(IndexError):
        take(torch.zeros(3, 2), torch.tensor([3]))
