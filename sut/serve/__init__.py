"""The pipeline behind the open inference protocol (KServe's v2), over HTTP and gRPC."""
