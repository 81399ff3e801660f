r"""Serves a picture classifier that `keras-residual export` wrote as ONNX, over HTTP; needs neither Keras nor PyTorch.

pip install litserve onnxruntime pillow
keras-residual export runs/digits-1 digits.onnx
python examples/serve_onnx.py digits.onnx
curl localhost:8000/predict -H 'Content-Type: application/json' -d "{\"picture\": \"$(base64 -w0 seven.png)\"}"
"""

import argparse
import io
import json

import litserve
import numpy as np
import onnxruntime
from fastapi import HTTPException
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Base64Bytes, BaseModel

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 50_000_000
NOTE = "keras_residual.json"


class Question(BaseModel):
    """The body of a request: a picture as its file, in base64."""

    picture: Base64Bytes


class Classifier(litserve.LitAPI):
    """What a worker process does with a request, one at a time."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def setup(self, device: str) -> None:
        """Loads the model, in the worker."""
        self.session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]
        self.note = json.loads(self.session.get_modelmeta().custom_metadata_map[NOTE])

    def decode_request(self, request: Question) -> np.ndarray:
        """Returns the picture as the model takes it; FastAPI has refused what is no question with a 422."""
        try:
            picture = Image.open(io.BytesIO(request.picture), formats=FORMATS)
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} pixels are more than {MOST_PIXELS:,}")
            picture = ImageOps.exif_transpose(picture)
            height, width, channels = self.input.shape[1:]
            picture = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height), Image.BICUBIC)
        except UnidentifiedImageError:
            raise HTTPException(422, f"The picture is none of {', '.join(FORMATS)}.") from None
        except Exception as error:  # Pillow's readers raise errors of many types
            raise HTTPException(422, f"The picture cannot be read: {error}.") from error
        dtype = self.note["inputs"][0]["dtype"]
        return np.asarray(picture, dtype).reshape(1, height, width, channels)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Returns what the model makes of it."""
        return self.session.run(None, {self.input.name: x})[0][0]

    def encode_response(self, output: np.ndarray) -> dict:
        """Returns the class, its probability, and what the model gave."""
        probabilities = output
        if self.note["ending"] == "logits":
            powers = np.exp(output - output.max())
            probabilities = powers / powers.sum()
        best = int(probabilities.argmax())
        labels = self.note["labels"] or list(map(str, range(len(probabilities))))
        return {"class": labels[best], "probability": float(probabilities[best]), "outputs": output.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--most-bytes", type=int, default=10_000_000, help="largest body of a request")
    asked = parser.parse_args()
    server = litserve.LitServer(Classifier(asked.model), accelerator="cpu", max_payload_size=asked.most_bytes)
    server.run(host=asked.host, port=asked.port, generate_client_file=False)


if __name__ == "__main__":
    main()
