"""What DeepStream's elements read of their configurations: tables of our own.

Names are those of NVIDIA/DeepStream at v9.1.0: the keys of `gstnvinfer_property_parser.h`, of which
the element only logs what it does not know, and the fields of `includes/nvdsinferserver_*.proto`;
of both, those that a classifier may need.
"""

from dfkd_edge.handover.parsers import key_file, text_proto

NVINFER_KEYS = {
    *("gpu-id", "onnx-file", "model-engine-file", "labelfile-path", "batch-size", "network-mode"),
    *("strongly-typed", "network-type", "infer-dims", "output-blob-names", "model-color-format"),
    *("net-scale-factor", "offsets", "maintain-aspect-ratio", "symmetric-padding"),
    *("scaling-filter", "scaling-compute-hw", "network-input-order", "classifier-threshold"),
    *("classifier-type", "classifier-async-mode", "secondary-reinfer-interval", "process-mode"),
    *("gie-unique-id", "interval", "operate-on-gie-id", "operate-on-class-ids", "enable-dla"),
    *("use-dla-core", "workspace-size", "int8-calib-file", "input-tensor-from-meta"),
    *("output-tensor-meta", "input-object-min-width", "input-object-min-height"),
}
NVINFERSERVER = {
    "PluginControl": {
        "infer_config": "InferenceConfig",
        "input_control": "InputControl",
        "output_control": "OutputControl",
    },
    "InferenceConfig": {
        "unique_id": "uint32",
        "gpu_ids": "repeated int32",
        "max_batch_size": "uint32",
        "backend": "BackendParams",
        "preprocess": "PreProcessParams",
        "postprocess": "PostProcessParams",
    },
    "BackendParams": {
        "triton": "TritonParams",
        "output_mem_type": "MEMORY_TYPE_DEFAULT|MEMORY_TYPE_CPU|MEMORY_TYPE_GPU",
        "disable_warmup": "bool",
    },
    "TritonParams": {
        "model_name": "string",
        "version": "int64",
        "model_repo": "TritonModelRepo",
        "grpc": "TritonGrpcParams",
    },
    "TritonGrpcParams": {"url": "string", "enable_cuda_buffer_sharing": "bool"},
    "TritonModelRepo": {
        "root": "repeated string",
        "log_level": "uint32",
        "strict_model_config": "bool",
        "model_control_mode": "string",
    },
    "PreProcessParams": {
        "network_format": "MEDIA_FORMAT_NONE|IMAGE_FORMAT_RGB|IMAGE_FORMAT_BGR|IMAGE_FORMAT_GRAY",
        "tensor_order": "TENSOR_ORDER_NONE|TENSOR_ORDER_LINEAR|TENSOR_ORDER_NHWC",
        "tensor_name": "string",
        "maintain_aspect_ratio": "int32",
        "symmetric_padding": "int32",
        "frame_scaling_hw": "FRAME_SCALING_HW_DEFAULT|FRAME_SCALING_HW_GPU|FRAME_SCALING_HW_VIC",
        "frame_scaling_filter": "uint32",
        "normalize": "ScaleNormalize",
    },
    "ScaleNormalize": {
        "scale_factor": "float",
        "channel_offsets": "repeated float",
        "mean_file": "string",
    },
    "PostProcessParams": {
        "labelfile_path": "string",
        "classification": "ClassificationParams",
    },
    "ClassificationParams": {"threshold": "float", "custom_parse_classifier_func": "string"},
    "InputControl": {
        "process_mode": ("PROCESS_MODE_DEFAULT|PROCESS_MODE_FULL_FRAME|PROCESS_MODE_CLIP_OBJECTS"),
        "operate_on_gie_id": "int32",
        "operate_on_class_ids": "repeated int32",
        "interval": "uint32",
        "secondary_reinfer_interval": "uint32",
        "async_mode": "bool",
    },
    "OutputControl": {"output_tensor_meta": "bool", "classifier_type": "string"},
}

nvinferserver = text_proto("PluginControl", NVINFERSERVER)


def nvinfer(text: str) -> dict[str, str]:
    """Read a configuration of nvinfer: one group, and no key that the element would pass over.

    Raises:
        ValueError: it is no key file, or has another group or an unknown key.
        OSError: GLib is not here.
    """
    groups = key_file(text)
    if list(groups) != ["property"]:
        raise ValueError(f"groups are {', '.join(groups)}, not property alone")
    unknown = groups["property"].keys() - NVINFER_KEYS
    if unknown:
        raise ValueError(f"nvinfer has no key {', '.join(sorted(unknown))}")
    return groups["property"]
