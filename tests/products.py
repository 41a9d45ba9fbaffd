"""What a program says of its matrix products and convolutions."""

import re


def precisions(program):
    """Of the two factors of each product, in order."""
    found = []
    for line in program.splitlines():
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line:
            told = re.findall(r"DEFAULT|HIGHEST|HIGH", line)
            assert len(told) in (0, 2), line
            found += told or ["DEFAULT"] * 2
    return found
