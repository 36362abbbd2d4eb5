"""Remote write's messages, as a sender's protobuf library makes them: prompb/types.proto and write/v2/types.proto."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "string": _FIELD.TYPE_STRING,
    "double": _FIELD.TYPE_DOUBLE,
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
    "uint32": _FIELD.TYPE_UINT32,
    "int32": _FIELD.TYPE_INT32,  # an enum, on the wire
}
_MESSAGES = {
    "prometheus": """
        Sample value:double=1 timestamp:int64=2
        Label name:string=1 value:string=2
        Exemplar labels:*Label=1 value:double=2 timestamp:int64=3
        Histogram count_int:uint64=1 sum:double=3 timestamp:int64=15
        TimeSeries labels:*Label=1 samples:*Sample=2 exemplars:*Exemplar=3 histograms:*Histogram=4
        MetricMetadata type:int32=1 metric_family_name:string=2 help:string=4 unit:string=5
        WriteRequest timeseries:*TimeSeries=1 metadata:*MetricMetadata=3
    """,
    "io.prometheus.write.v2": """
        Sample value:double=1 timestamp:int64=2 start_timestamp:int64=3
        Exemplar labels_refs:*uint32=1 value:double=2 timestamp:int64=3
        Histogram count_int:uint64=1 sum:double=3 timestamp:int64=15
        Metadata type:int32=1 help_ref:uint32=3 unit_ref:uint32=4
        TimeSeries labels_refs:*uint32=1 samples:*Sample=2 histograms:*Histogram=3 exemplars:*Exemplar=4 \
metadata:Metadata=5 created_timestamp:int64=6
        Request symbols:*string=4 timeseries:*TimeSeries=5
    """,
}


def _classes(package):
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for line in _MESSAGES[package].strip().splitlines():
        name, *fields = line.split()
        message = file.message_type.add(name=name)
        for field in fields:
            field_name, _, rest = field.partition(":")
            kind, _, number = rest.partition("=")
            repeated, kind = kind.startswith("*"), kind.removeprefix("*")
            message.field.add(
                name=field_name,
                number=int(number),
                label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
                **(
                    {"type": _KINDS[kind]}
                    if kind in _KINDS
                    else {"type": _FIELD.TYPE_MESSAGE, "type_name": kind}
                ),
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message.name}"))
        for message in file.message_type
    }


V1, V2 = _classes("prometheus"), _classes("io.prometheus.write.v2")
WriteRequest, Request = V1["WriteRequest"], V2["Request"]


def write_request(series, metadata=()):
    """1.0: ``series`` are pairs of labels (a dict or pairs) and samples (pairs of ms and value)."""
    request = WriteRequest()
    for labels, samples in series:
        one = request.timeseries.add()
        for name, value in labels.items() if isinstance(labels, dict) else labels:
            one.labels.add(name=name, value=value)
        for at_ms, value in samples:
            one.samples.add(value=value, timestamp=at_ms)
    for fields in metadata:
        request.metadata.add(**fields)
    return request


def request_2(series, told=None):
    """2.0, the same; ``told`` is help and unit by name."""
    request = Request()
    refs = {"": 0}

    def ref(text):
        return refs.setdefault(text, len(refs))

    for labels, samples in series:
        one = request.timeseries.add()
        for name, value in labels.items() if isinstance(labels, dict) else labels:
            one.labels_refs.extend((ref(name), ref(value)))
            if name == "__name__" and told and value in told:
                one.metadata.help_ref, one.metadata.unit_ref = map(ref, told[value])
        for at_ms, value in samples:
            one.samples.add(value=value, timestamp=at_ms)
    request.symbols.extend(refs)
    return request
