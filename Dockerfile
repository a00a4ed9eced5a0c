# The `embedq` command; compose.yaml runs it as worker and as producer. Redis is a server of its own.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY jobs jobs
COPY plugins plugins
COPY store store
COPY worker worker
COPY producer producer
COPY embedq embedq
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# More to install beside embedq, such as plugins, or pyarrow for Parquet.
ARG PACKAGES=""
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl ${PACKAGES}
# A volume that is mounted on /data for the first time takes over its owner.
RUN useradd --create-home embedq && install --directory --owner=embedq --group=embedq /data
ENV PYTHONUNBUFFERED=1 EMBEDQ_DATABASE=/data/embeddings.db
USER embedq
WORKDIR /data
# The worker handles SIGTERM itself, as process 1 too: no init is needed.
ENTRYPOINT ["embedq"]
CMD ["--help"]
