# The model service, with the embedded model:
#   docker build -f docker/model-service.Dockerfile -t abstract-model-service .
# Another checkpoint: mount it and set ABSTRACT_MODEL_MODEL.
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/install_deps.sh deploy/
RUN deploy/install_deps.sh
COPY . .
RUN cmake --preset release -DABSTRACT_BUILD_TESTS=OFF \
    && cmake --build build --target abstract-model-server abstract \
    && docker/runtime_packages.sh build/bin/abstract-model-server build/bin/abstract > /runtime-packages

FROM debian:bookworm-slim
COPY --from=build /runtime-packages /usr/share/abstract/runtime-packages
RUN apt-get update \
    && xargs apt-get install -y --no-install-recommends python3-jinja2 < /usr/share/abstract/runtime-packages \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --home-dir /var/lib/abstract abstract
COPY --from=build /src/build/bin/abstract-model-server /src/build/bin/abstract /usr/local/bin/
COPY data/models /usr/share/abstract/models
USER abstract
WORKDIR /var/lib/abstract
ENV ABSTRACT_MODEL_MODEL=/usr/share/abstract/models/tiny-llama-refusal \
    ABSTRACT_MODEL_LISTEN_ADDRESS=0.0.0.0:50051 \
    ABSTRACT_MODEL_INSECURE=true \
    ABSTRACT_MODEL_METRICS_ADDRESS=0.0.0.0:9464
EXPOSE 50051 9464
# A large checkpoint takes minutes to load.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10m \
    CMD ["abstract", "--server", "127.0.0.1:50051", "--max-attempts", "1", "--quiet", "model"]
ENTRYPOINT ["abstract-model-server"]
