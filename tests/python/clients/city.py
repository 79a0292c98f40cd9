"""What scripts let the model tell by a schema."""

from pydantic import BaseModel, ConfigDict, Field


class City(BaseModel):
    """Bounded, as a small model may never end a text by itself."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=20)
    inhabitants: int = Field(ge=0, le=99_999_999)
