"""Schema checks of Arrow data before it is read: no extension types that may hold pickles, no duplicate columns.

A column of `ray.data.arrow_pickled_object` or `arrow.py_extension_type` unpickles when a value is accessed, and a
pickle can run any code. So the schema is checked before any value is accessed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from mapl_ray.errors import UserError

# Extension types whose values are plain data.
PLAIN_EXTENSIONS = frozenset({"arrow.uuid", "arrow.json", "arrow.bool8", "arrow.fixed_shape_tensor"})


def refuse_extensions(schema: pa.Schema, where: str) -> None:
    """Raise `UserError` if any column, at any nesting depth, has an Arrow extension type that is not plain data."""
    for column in schema:
        found = next((name for name in _extensions(column) if name not in PLAIN_EXTENSIONS), None)
        if found is not None:
            raise UserError(
                f"{where}: column {column.name!r} has the Arrow extension type {found!r}, which may hold pickled "
                "objects and is not opened. Write the column as text, numbers or lists of them, or leave it out."
            )


def refuse_duplicates(schema: pa.Schema, where: str) -> None:
    """Raise `UserError` if two columns, or two fields of a struct at any depth, have the same name."""
    levels = [[*schema]]
    while levels:
        fields = levels.pop()
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{where}: a column name occurs twice: {twice!r}. Rename or remove one of them.")
        for kind in (field.type for field in fields):
            storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            levels.append([storage.field(index) for index in range(storage.num_fields)])


def _extensions(column: pa.Field) -> Iterator[str]:
    # An explicit stack, because a schema may be nested deeper than Python's recursion limit.
    fields = [column]
    while fields:
        field = fields.pop()
        # Registered types appear as extension types. For others Arrow keeps the storage type, and the name as metadata.
        name = (field.metadata or {}).get(b"ARROW:extension:name")
        if name is not None:
            yield name.decode("utf-8", "replace")
        kind = field.type
        if isinstance(kind, pa.BaseExtensionType):
            yield kind.extension_name
            kind = kind.storage_type
        if isinstance(kind, pa.DictionaryType):
            fields.append(pa.field("values", kind.value_type))
        fields += [kind.field(index) for index in range(kind.num_fields)]
