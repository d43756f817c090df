"""Numbers of answers, with as many decimals as say something."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

#: Of percentages and milliseconds.
Hundredths = Annotated[float, AfterValidator(lambda number: round(number, 2))]

#: Of a share in %: of ten million logs one is 0.00001 %.
Rate = Annotated[float, AfterValidator(lambda number: round(number, 5))]
