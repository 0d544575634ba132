# One image for every role: `api`, `worker`, `migrate`, `operator`, `simulator` and the commands.
# docs/decisions/0010-image.md says why it looks like this.
ARG BASE_IMAGE=python:3.13-slim-bookworm

# --- the dependencies, by hash, under one directory -----------------------------------------------
FROM ${BASE_IMAGE} AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
# What runs has no pip; what builds is thrown away.
RUN python3 -m venv --without-pip /opt/mpesa-gateway && python3 -m venv tools
COPY locks/requirements.lock ./
# Wheels only: nothing is compiled here, so no compiler is needed. The bytecode is shipped, because
# nothing may be written where it runs, and never checked against its source: both never change.
RUN tools/bin/pip --python /opt/mpesa-gateway/bin/python install --quiet --no-compile \
      --require-hashes --only-binary :all: --requirement requirements.lock \
 && find /opt/mpesa-gateway/bin -type f -delete \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/mpesa-gateway/lib

# --- the project itself -----------------------------------------------------------------------------
FROM dependencies AS project
COPY locks/requirements-demo.lock ./
# What builds the wheel, out of a lock file like the rest.
RUN awk '/^[a-z]/ { wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } wanted' \
      requirements-demo.lock > build.lock \
 && tools/bin/pip install --quiet --require-hashes --only-binary :all: --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY operator operator
# Without src/mpesa_demo and src/mpesa_devkit: production has no use for them.
COPY src/mpesa_gateway src/mpesa_gateway
COPY src/daraja_simulator src/daraja_simulator
# Into a root of its own: its layer is small, and the only one that a new version changes.
RUN tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && tools/bin/pip --python /opt/mpesa-gateway/bin/python install --quiet --no-compile \
      --no-deps --root /build/root dist/*.whl \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /build/root /build/root

# --- what runs --------------------------------------------------------------------------------------
FROM ${BASE_IMAGE}
# The base's own pip goes as well, and a number is a user with a name.
RUN rm -rf /usr/bin/pip* /usr/local/bin/pip* /usr/share/python-wheels \
      /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip \
 && for name in pip setuptools pkg_resources wheel _distutils_hack; do \
      rm -rf "/usr/lib/python3/dist-packages/$name"* /usr/local/lib/python3*/site-packages/"$name"*; \
    done \
 && groupadd --gid 10001 mpesa \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin mpesa
COPY --from=dependencies /opt/mpesa-gateway /opt/mpesa-gateway
COPY --from=project /build/root /
ENV PATH=/opt/mpesa-gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["mpesa-gateway"]
CMD ["--help"]
# Last, so that a new version keeps every layer above.
ARG BASE_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mpesa-gateway" \
      org.opencontainers.image.description="A payment gateway for M-Pesa STK Push" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
