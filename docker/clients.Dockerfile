# The tool `abstract` and the study's prompts; results appear in /study/outputs:
#   docker build -f docker/clients.Dockerfile -t abstract-clients .
#   docker run --rm --network host -v "$PWD/outputs:/study/outputs" abstract-clients baseline
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/install_deps.sh deploy/
RUN deploy/install_deps.sh
COPY . .
RUN cmake --preset release -DABSTRACT_BUILD_TESTS=OFF \
    && cmake --build build --target abstract \
    && docker/runtime_packages.sh build/bin/abstract > /runtime-packages

FROM debian:bookworm-slim
COPY --from=build /runtime-packages /usr/share/abstract/runtime-packages
RUN apt-get update \
    && xargs apt-get install -y --no-install-recommends < /usr/share/abstract/runtime-packages \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --home-dir /study abstract && install -d -o abstract /study /study/outputs
COPY --from=build /src/build/bin/abstract /usr/local/bin/
COPY data/*.json data/config.yaml /study/data/
COPY data/published /study/data/published
USER abstract
WORKDIR /study
VOLUME /study/outputs
ENTRYPOINT ["abstract"]
