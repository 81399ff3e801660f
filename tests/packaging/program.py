"""Runs in an environment that holds the wheel and one backend: builds, fits, saves, loads and predicts."""

import sys
from pathlib import Path

import keras_residual as kr  # before keras, for which it takes the backend that is installed

# isort: split
import keras
import numpy as np

backend, checkout = sys.argv[1:]
if keras.backend.backend() != backend:
    raise RuntimeError(f"Keras runs on {keras.backend.backend()}, not on {backend}.")
if Path(kr.__file__).is_relative_to(checkout):
    raise RuntimeError(f"keras_residual came from the checkout: {kr.__file__}")

keras.utils.set_random_seed(0)
inputs = keras.Input((10,))
x = keras.layers.Dense(16, activation="relu")(inputs)
x = kr.Residual([keras.layers.Dense(16, activation="relu"), keras.layers.Dense(16)])(x)
model = keras.Model(inputs, keras.layers.Dense(1)(x))
model.compile("adam", "mse")

rng = np.random.default_rng(0)
features, targets = rng.normal(size=(64, 10)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")
model.fit(features, targets, batch_size=32, epochs=1, verbose=0)  # two steps
if int(model.optimizer.iterations) != 2:
    raise RuntimeError(f"Expected two steps, took {int(model.optimizer.iterations)}.")
model.save("model.keras")
loaded = keras.models.load_model("model.keras")
np.testing.assert_allclose(loaded.predict(features, verbose=0), model.predict(features, verbose=0), rtol=1e-6)
print(f"keras_residual {kr.__version__} from the wheel on {backend}: fitted, saved, loaded, predicted")
