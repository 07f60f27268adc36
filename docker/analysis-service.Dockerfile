# The analysis service; its database is in /var/lib/abstract:
#   docker build -f docker/analysis-service.Dockerfile -t abstract-analysis-service .
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/install_deps.sh deploy/
RUN deploy/install_deps.sh
COPY . .
RUN cmake --preset release -DABSTRACT_BUILD_TESTS=OFF \
    && cmake --build build --target abstract-analysis-server \
    && docker/runtime_packages.sh build/bin/abstract-analysis-server > /runtime-packages

FROM debian:bookworm-slim
COPY --from=build /runtime-packages /usr/share/abstract/runtime-packages
RUN apt-get update \
    && xargs apt-get install -y --no-install-recommends < /usr/share/abstract/runtime-packages \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --home-dir /var/lib/abstract abstract
COPY --from=build /src/build/bin/abstract-analysis-server /usr/local/bin/
USER abstract
WORKDIR /var/lib/abstract
VOLUME /var/lib/abstract
ENV ABSTRACT_ANALYSIS_DATABASE=/var/lib/abstract/analysis.sqlite \
    ABSTRACT_ANALYSIS_LISTEN_ADDRESS=0.0.0.0:50052 \
    ABSTRACT_ANALYSIS_INSECURE=true \
    ABSTRACT_ANALYSIS_HTTP_ADDRESS=0.0.0.0:8080 \
    ABSTRACT_ANALYSIS_METRICS_ADDRESS=0.0.0.0:9465
EXPOSE 50052 8080 9465
# No curl in the image: bash asks /healthz.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["abstract-analysis-server"]
