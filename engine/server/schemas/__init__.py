"""What clients send and what they get, as pydantic models; the OpenAPI document is made of them."""
