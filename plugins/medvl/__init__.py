"""medvl: fine-tuning and scoring medical vision-language models on LLaMA-Factory."""
