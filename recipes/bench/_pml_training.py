"""The loop a user writes by hand: ImageFolder, DataLoader and pytorch-metric-learning.

python _pml_training.py FOLDER ARCH SIZE RESIZE EPOCHS
"""

import sys

import timm
import torch
from pytorch_metric_learning import losses, samplers
from torchvision import datasets, transforms


def main() -> None:
    folder, arch, size, resize, epochs = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    transform = transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = datasets.ImageFolder(folder, transform)
    sampler = samplers.MPerClassSampler(
        data.targets, m=4, batch_size=40, length_before_new_iter=len(data)
    )
    loader = torch.utils.data.DataLoader(
        data, batch_size=40, sampler=sampler, num_workers=2, persistent_workers=True, drop_last=True
    )
    model = torch.nn.Sequential(timm.create_model(arch, num_classes=128))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)
    loss_of = losses.MultiSimilarityLoss(alpha=2, beta=40, base=0.5)
    for _ in range(epochs):
        for images, labels in loader:
            images = images.to(memory_format=torch.channels_last)
            loss = loss_of(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save(model.state_dict(), folder + "/../baseline.pt")


if __name__ == "__main__":
    main()
