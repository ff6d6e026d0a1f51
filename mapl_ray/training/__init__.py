"""Training of reward models and DPO policies, without Ray. Import names from the modules.

`loop.train` uses DeepSpeed, `hf_trainer.MaplTrainer` transformers and Accelerate. Other modules load none of these.
"""
