"""Tool parameters as Gemini takes them: its ``parametersJsonSchema`` knows a part of JSON schema.

One keyword that it does not know refuses the whole request, whatever tool it stands in. So only
what is documented is sent; tools check their arguments themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from crush_trio import limits

_PLAIN = frozenset(
    ["title", "description", "minItems", "maxItems", "minimum", "maximum", "propertyOrdering"]
)
_FORMATS = frozenset(["date-time", "int32", "int64", "float", "double"])
_TYPES = frozenset(["string", "number", "integer", "boolean", "array", "object", "null"])
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "prefixItems": "prefixItems"}
_Schema = dict[str, Any]


def parameters(schema: Mapping[str, Any]) -> _Schema:
    """``schema``, which describes an object, in the keywords that Gemini documents.

    References inside the document are resolved, constants become enumerations, several schemas
    that must all hold become one; what has no counterpart is left out, never made stricter.
    """
    root = _Converter(schema).converted(schema, ())
    root["type"] = "object"
    root.setdefault("properties", {})
    return root


@attrs.define
class _Converter:
    """Converts the schemas of one document; ``left`` bounds how many it makes of it."""

    document: Mapping[str, Any]
    left: int = limits.TOOL_SCHEMA_PLACES

    def converted(self, schema: Any, inside: tuple[str, ...], depth: int = 0) -> _Schema:
        """One schema; ``inside`` are the references that led to it."""
        self.left -= 1
        if not isinstance(schema, Mapping) or depth > limits.TOOL_SCHEMA_DEPTH or self.left < 0:
            return {}
        whole, inside = self._whole(dict(schema), inside)
        made: _Schema = {key: whole[key] for key in _PLAIN & whole.keys()}
        types = _types(whole.get("type"))
        if types:
            made["type"] = types
        form = whole.get("format")
        if isinstance(form, str) and form in _FORMATS:
            made["format"] = form
        values = _values(whole)
        if values:
            made["enum"] = values
        self._put_members(made, whole, inside, depth + 1)
        for key, name in _LISTS.items():
            options = whole.get(key)
            if isinstance(options, list) and options and name not in made:
                made[name] = [self.converted(option, inside, depth + 1) for option in options]
        items = whole.get("items")
        if isinstance(items, Mapping):
            made["items"] = self.converted(items, inside, depth + 1)
        return made

    def _put_members(
        self, made: _Schema, whole: _Schema, inside: tuple[str, ...], depth: int
    ) -> None:
        members = whole.get("properties")
        if isinstance(members, Mapping):
            made["properties"] = {
                str(name): self.converted(member, inside, depth) for name, member in members.items()
            }
            required = whole.get("required")
            if isinstance(required, list):
                names = [name for name in required if name in made["properties"]]
                made.update({"required": names} if names else {})
        others = whole.get("additionalProperties")
        if isinstance(others, bool):
            made["additionalProperties"] = others
        elif isinstance(others, Mapping):
            made["additionalProperties"] = self.converted(others, inside, depth)

    def _whole(self, schema: _Schema, inside: tuple[str, ...]) -> tuple[_Schema, tuple[str, ...]]:
        """The schema with what it refers to, and with what must hold besides."""
        reference = schema.pop("$ref", None)
        if isinstance(reference, str) and reference not in inside:
            inside = (*inside, reference)
            target, inside = self._whole(dict(self._target(reference)), inside)
            schema = {**target, **schema}
        parts = schema.pop("allOf", None)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, Mapping):
                self.left -= 1
                if self.left < 0:
                    break
                more, inside = self._whole(dict(part), inside)
                schema = _both(schema, more)
        return schema, inside

    def _target(self, reference: str) -> Mapping[str, Any]:
        found: Any = self.document
        if not reference.startswith("#"):
            return {}
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def _both(first: _Schema, second: _Schema) -> _Schema:
    made = {**second, **first}
    for key in ("properties", "required"):
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            made[key] = {**other, **one}
        elif isinstance(one, list) and isinstance(other, list):
            made[key] = [*one, *(name for name in other if name not in one)]
    return made


def _types(value: Any) -> str | list[str] | None:
    if isinstance(value, list):
        known = [name for name in value if isinstance(name, str) and name in _TYPES]
        return known if len(known) > 1 else (known[0] if known else None)
    return value if isinstance(value, str) and value in _TYPES else None


def _values(schema: _Schema) -> list[Any]:
    """Its allowed values, if all of them are strings or numbers: no others can be listed."""
    listed = schema.get("enum")
    if not isinstance(listed, list):
        listed = [schema["const"]] if "const" in schema else []
    if all(type(value) in (str, int, float) for value in listed):
        return list(listed)
    return []
