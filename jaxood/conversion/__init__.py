"""PyTorch checkpoints to weights files."""

from jaxood.conversion.convert import ConversionReport, convert, convert_state_dict

__all__ = ["ConversionReport", "convert", "convert_state_dict"]
