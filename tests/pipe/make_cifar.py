"""Makes small archives in the binary formats of CIFAR-10 and CIFAR-100, with Python's own tar and gzip.

    python3 make_cifar.py FOLDER

Format: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""
import io
import os
import sys
import tarfile

import numpy

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()

random = numpy.random.default_rng(0)


def images(labels):
    """One record an image: the label bytes, then 3072 bytes of pixels, channel by channel."""
    return b"".join(bytes(label) + random.integers(0, 256, 3072, dtype=numpy.uint8).tobytes() for label in labels)


def archive(path, files):
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))


folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
batches = {f"cifar-10-batches-bin/data_batch_{n}.bin": images([(i % 10,) for i in range(20)]) for n in range(1, 6)}
archive(os.path.join(folder, "cifar-10-binary.tar.gz"), {
    "cifar-10-batches-bin/batches.meta.txt": "\n".join(CIFAR10).encode() + b"\n\n",
    **batches,
    "cifar-10-batches-bin/test_batch.bin": images([(0,)] * 7),
})
archive(os.path.join(folder, "cifar-100-binary.tar.gz"), {
    "cifar-100-binary/coarse_label_names.txt": b"trees\n",
    "cifar-100-binary/fine_label_names.txt": "\n".join(CIFAR100).encode() + b"\n",
    "cifar-100-binary/train.bin": images([(17, i % 100) for i in range(600)]),
    "cifar-100-binary/test.bin": images([(17, 0)] * 5),
})
