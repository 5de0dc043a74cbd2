"""Answers to questions about images, against one question at a time with the image encoded for each.

A model of the size of BLIP base (ViT-B/16 at 384 px, question encoder and answer decoder of 12 layers and 768
channels) with random weights, 3 beams, at most 10 tokens, and the 16 questions of QA-CLIMS for 1.5 classes an
image. The simplest correct version calls `BlipForQuestionAnswering.generate` for each question. It is timed
on a sample of the questions, and its time for all of them is extrapolated. Both give the same answers.

    python benchmarks/vqa.py [--repetitions 3] [--device cpu] [--images 2] [--sample 6] [--precision float32]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import BlipConfig, BlipForQuestionAnswering

from record import record
from wsss.models.tiny_clip import word_tokenizer
from wsss.models.vqa import HuggingFaceVqa

TEMPLATES = (
    "what is above the {}?",
    "what is under the {}?",
    "what is behind the {}?",
    "what is around the {}?",
    "what is next to the {}?",
    "what is the left side of {}?",
    "what is the right side of {}?",
    "what scene is the {} in?",
    "what environment is the {} in?",
    "what place is the {} in?",
    "What kind of {} is in the photo?",
    "What type of {} is in the photo?",
    "What is this {} also called?",
    "What is this {} usually called?",
    "What is another word for this {}?",
    "What is another name for this {}?",
)
CLASSES = (("dog", "dining table"), ("train",), ("horse", "person"), ("potted plant",))  # 1.5 an image
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
END, VOCABULARY = 3, 30524

Setting = tuple[HuggingFaceVqa, list[np.ndarray], list[list[str]]]


def setup(arguments: argparse.Namespace) -> Setting:
    """An answerer with random weights, photographs' worth of noise, and the questions about each."""
    torch.manual_seed(0)
    questions = [
        [template.format(name) for name in names for template in TEMPLATES]
        for names in (CLASSES * arguments.images)[: arguments.images]
    ]
    words = [text for own in questions for text in own]
    missing = VOCABULARY - len(word_tokenizer(words, context_length=512))
    tokenizer = word_tokenizer([*words, *(f"word{n}" for n in range(missing))], context_length=512)
    text = {"bos_token_id": 2, "sep_token_id": END, "pad_token_id": 0, "num_attention_heads": 12}
    model = BlipForQuestionAnswering(BlipConfig(text_config=text))  # transformers' defaults are BLIP base's
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:  # answers differ; wider, rounding alone would change them
            is_place = name.startswith("text_decoder") and "position" in name
            nn.init.normal_(parameter, std=0.6 if is_place else 0.06 if "embedding" in name else 0.12)
    answerer = HuggingFaceVqa(
        model, tokenizer, mean=MEAN, std=STD, precision=arguments.precision, name="random"
    ).to(arguments.device)
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in questions]
    images = [np.asarray(Image.fromarray(image).resize((500, 375))) for image in coarse]
    return answerer, images, questions


def straightforward(
    answerer: HuggingFaceVqa, images: list[np.ndarray], questions: list[list[str]]
) -> list[list[str]]:
    """One question at a time, each with its image encoded again."""
    device, size = next(answerer.parameters()).device, answerer.image_size

    def ask(image: np.ndarray, question: str) -> str:
        squashed = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        pixels = (np.asarray(squashed, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
        ids = answerer.tokenizer(question, return_tensors="pt")["input_ids"].to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=answerer.precision == "bfloat16"):
            found = answerer.model.generate(
                input_ids=ids,
                pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device),
                num_beams=3,
                max_length=10,
                min_length=1,
                do_sample=False,
            )
        text: str = answerer.tokenizer.decode(
            [number for number in found[0].tolist() if number < len(answerer.tokenizer)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=True,
        )
        return text.strip()

    return [[ask(image, question) for question in own] for image, own in zip(images, questions, strict=True)]


def ours(answerer: HuggingFaceVqa, images: list[np.ndarray], questions: list[list[str]]) -> list[list[str]]:
    """All at once."""
    return answerer.answer(images, questions)


CASES: dict[str, Callable[..., list[list[str]]]] = {"ours": ours, "straightforward": straightforward}


def sampled(questions: list[list[str]], count: int) -> list[list[int]]:
    """Places of about `count` questions in all, evenly spread over each image's."""
    each = max(1, count // len(questions))
    return [sorted({round(place) for place in np.linspace(0, len(own) - 1, each)}) for own in questions]


def timed(name: str, setting: Setting, questions: list[list[str]]) -> tuple[list[list[str]], float]:
    """The answers, and the seconds that they took."""
    answerer, images, _ = setting
    _wait(answerer)
    start = time.perf_counter()
    answers = CASES[name](answerer, images, questions)
    _wait(answerer)
    return answers, time.perf_counter() - start


def _wait(answerer: HuggingFaceVqa) -> None:
    if next(answerer.parameters()).device.type == "cuda":
        torch.cuda.synchronize()


def peak_mb(name: str, arguments: argparse.Namespace) -> float:
    """Peak memory of a process that runs one case once."""
    options = ["--only", name, "--device", arguments.device, "--precision", arguments.precision]
    options += ["--images", str(arguments.images), "--sample", str(arguments.sample)]
    done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["peak_mb"])


def run_alone(name: str, arguments: argparse.Namespace) -> None:
    """One case once (the straightforward one on two questions), then the peak memory as JSON."""
    setting = setup(arguments)
    questions = setting[2]
    if name == "straightforward":
        questions = [[own[0]] if number < 2 else [] for number, own in enumerate(questions)]
    timed(name, setting, questions)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"peak_mb": peak}))


def main(arguments: argparse.Namespace) -> None:
    # first, while this process is small: a child's peak on Linux starts from its parent's size
    peaks = {name: peak_mb(name, arguments) for name in CASES}
    setting = setup(arguments)
    questions = setting[2]
    places = sampled(questions, arguments.sample)
    sample = [[own[place] for place in chosen] for own, chosen in zip(questions, places, strict=True)]
    asked, few = sum(map(len, questions)), sum(map(len, sample))
    timed("straightforward", setting, [own[:1] for own in questions])  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(arguments.repetitions):
        answers, duration = timed("ours", setting, questions)
        seconds["ours"].append(duration / asked)
        expected, duration = timed("straightforward", setting, sample)
        seconds["straightforward"].append(duration / few)
        same = [[own[place] for place in chosen] for own, chosen in zip(answers, places, strict=True)]
        assert same == expected, (same, expected)
    times = {name: min(values) for name, values in seconds.items()}  # other work on the machine only adds
    different = len({text for own in answers for text in own})
    for name, count in (("ours", asked), ("straightforward", few)):
        row = {
            "case": name,
            "questions": count,
            "questions_per_second": round(1 / times[name], 3),
            "seconds_per_question": [round(value, 4) for value in seconds[name]],
            "peak_mb": round(peaks[name]),
            "different_answers": different,
        }
        print(json.dumps(row))
    device = torch.device(arguments.device)
    per = f"{asked} questions" if few == asked else f"{asked} questions, extrapolated from {few}"
    of = f"BLIP base at 384 px, {arguments.precision}, {len(questions)} images, {asked} questions"
    plain, all_ours = times["straightforward"] * asked, times["ours"] * asked
    ratio = plain / all_ours
    record("vqa", of, "one question at a time", ratio, all_ours, peaks["ours"], device=device)
    own = f"{of}: one question at a time itself ({per})"
    record("vqa", own, "one question at a time", 1.0, plain, peaks["straightforward"], device=device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=2, help="an even number: 1.5 classes an image")
    parser.add_argument("--sample", type=int, default=6, help="questions that are asked one at a time")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", choices=CASES, help="run this case alone and print its peak memory")
    chosen = parser.parse_args()
    run_alone(chosen.only, chosen) if chosen.only else main(chosen)
