#!/usr/bin/env python3
"""Holds a study's baseline against Hugging Face transformers.

Loads a checkpoint as any user of transformers would, answers the prompts of
01_baseline_results.json greedily in fp32, and compares texts token for token
with what the model service said. Not run by ctest: Debian 12 has no transformers
(Debian's next releases do, as python3-transformers).

    tests/interop/check_with_transformers.py data/models/tiny-llama-refusal outputs/results/01_baseline_results.json
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> int:
    directory, results_path = sys.argv[1:3]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with open(results_path, encoding="utf-8") as file:
        responses = json.load(file)["responses"]
    differing = 0
    for response in responses:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": response["prompt"]}],
            add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False,
                                    pad_token_id=tokenizer.eos_token_id)
        text = tokenizer.decode(output[0, ids.shape[1]:], skip_special_tokens=True)
        if text != response["response"]:
            differing += 1
            print(f"prompt:       {response['prompt']}\ntransformers: {text}\nservice:      {response['response']}\n")
    print(f"{len(responses) - differing} of {len(responses)} answers are the same")
    return 1 if differing or not responses else 0


if __name__ == "__main__":
    sys.exit(main())
