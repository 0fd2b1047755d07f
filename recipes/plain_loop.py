"""The loop that a user of pytorch-metric-learning writes, on the lists that mltool reads.

python plain_loop.py DATA TEST_DATA -o test.h5 --arch resnet10t --size 32 --epochs 3
    [--classes 0-49 --test-classes 50-99] [--weights FILE] [--frozen] --lr 1e-3 --seed 0

torchvision's transforms, torch's DataLoader, MPerClassSampler, MultiSimilarityLoss and AdamW at
one constant rate. A pretrained backbone keeps its average pooling and gets no new layer; from
scratch a linear layer of 512 dimensions follows. The vectors of TEST_DATA are written for
`mltool evaluate`.
"""

import argparse

import numpy as np
import timm
import torch
from PIL import Image
from pytorch_metric_learning import losses, samplers
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mltool.datasets import open_data
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest

BATCH, WORKERS = 128, 2


class ListedImages(Dataset):
    """The images of a list, each opened when it is asked for."""

    def __init__(self, manifest: Manifest, transform: transforms.Compose) -> None:
        self.paths = [str(path) for path in manifest.paths]
        self.labels, self.transform = manifest.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), self.labels[row]


def build_transforms(size: int) -> tuple[transforms.Compose, transforms.Compose]:
    """Return the transform of training and that of the test."""
    resize = transforms.Resize(round(size * 8 / 7))
    last = [
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    crop = transforms.RandomResizedCrop(size, scale=(0.2, 1.0))
    train = transforms.Compose([resize, crop, transforms.RandomHorizontalFlip(), *last])
    return train, transforms.Compose([resize, transforms.CenterCrop(size), *last])


def build_model(arch: str, weights: str | None) -> nn.Module:
    """Build the network, from weights without a new layer, from scratch with one."""
    model = timm.create_model(arch, num_classes=512 if weights is None else 0)
    if weights is not None:
        state = load_file(weights)
        model.load_state_dict({key: state[key] for key in model.state_dict()})
    return model.to(memory_format=torch.channels_last)


def train(model: nn.Module, images: ListedImages, options: argparse.Namespace) -> None:
    """Train for the steps that `mltool train` takes in as many epochs."""
    classes = len(set(images.labels))
    each = max(4, BATCH // classes)
    size = min(BATCH // each, classes) * each
    length = max(1, len(images) // size) * size
    sampler = samplers.MPerClassSampler(images.labels, each, size, length)
    loader = DataLoader(images, size, sampler=sampler, num_workers=WORKERS, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), options.lr, weight_decay=1e-4)
    loss_of = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    model.train()
    if options.frozen:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    steps = 0
    for _ in range(options.epochs):
        for pixels, labels in loader:
            loss = loss_of(model(pixels.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    print(f"{len(images)} images, {classes} classes, {steps} steps of {size}")


@torch.inference_mode()
def embed(model: nn.Module, images: ListedImages) -> np.ndarray:
    """Return the vectors [N, D] of all images, of unit length."""
    model.eval()
    loader = DataLoader(images, BATCH, num_workers=WORKERS)
    vectors = [model(pixels.to(memory_format=torch.channels_last)) for pixels, _ in loader]
    return nn.functional.normalize(torch.cat(vectors)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("test_data")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--classes")
    parser.add_argument("--test-classes")
    parser.add_argument("--arch", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--frozen", action="store_true", help="Keep the batch statistics.")
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)  # MPerClassSampler draws from it
    in_training, in_test = build_transforms(options.size)
    model = build_model(options.arch, options.weights)
    manifest = open_data([options.data], classes=options.classes)
    train(model, ListedImages(manifest, in_training), options)
    manifest = open_data([options.test_data], classes=options.test_classes)
    vectors = embed(model, ListedImages(manifest, in_test))
    embeddings.write(options.output, Embeddings(manifest.names, vectors, manifest.labels))


if __name__ == "__main__":
    main()
