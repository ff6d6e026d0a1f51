"""Training of reward models and DPO policies, without Ray. Import what you need from its modules.

`loop.train` loads DeepSpeed; `hf_trainer.MaplTrainer` trains with transformers and Accelerate; the rest loads neither.
"""
