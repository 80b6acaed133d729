# The program in an image of its own: docker build -t mtlora . && docker run --rm -v "$PWD:/work" mtlora train
# Not tried yet: it was written where no Docker daemon runs.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The program contains glibc (see release/build), so that it needs nothing of an image.
RUN cargo rustc --release --locked --bin mtlora -- -C strip=symbols -C target-feature=+crt-static

FROM scratch
COPY --from=build /source/target/release/mtlora /mtlora
COPY --from=build /source/LICENSE-MIT /source/LICENSE-APACHE /source/NOTICE /
# Mount a folder here; runs and the Hub's cache are written into it.
WORKDIR /work
ENV HF_HOME=/work/.cache/huggingface
ENTRYPOINT ["/mtlora"]
CMD ["--help"]
