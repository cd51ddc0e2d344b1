"""Learns scikit-learn's digits batch by batch with partial_fit."""

import pickle

import numpy as np
from burn_pipe import canonical, job
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

pixels, digits = load_digits(return_X_y=True)
train, test = slice(0, 1500), slice(1500, None)

if job.start:
    model = canonical(pickle.loads(job.start.read_bytes()))
else:
    model = SGDClassifier(loss="log_loss", alpha=job.settings.get("alpha", 1e-4))

for epoch in job.epochs(5):  # each epoch seeds np.random by (seed, epoch)
    order = np.random.permutation(1500)
    for batch in np.split(order, 15):
        model.partial_fit(pixels[batch], digits[batch], classes=range(10))
        job.report()
    scores = {
        "train_accuracy": model.score(pixels[train], digits[train]),
        "val_accuracy": model.score(pixels[test], digits[test]),
    }
    job.save(lambda path: path.write_bytes(pickle.dumps(model)), scores)
