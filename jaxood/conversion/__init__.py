"""PyTorch checkpoints to weights files."""

from jaxood.conversion.convert import convert_checkpoint, convert_state_dict

__all__ = ["convert_checkpoint", "convert_state_dict"]
