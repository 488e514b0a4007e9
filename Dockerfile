# localizer_ros beside ROS 2 Jazzy: the node in a virtual environment of its own, the distribution's tools around it.
#
#   docker build -t localizer_ros .
#   docker run --rm --net=host --ipc=host -v $PWD/scenes:/scenes localizer_ros run /scenes/room \
#     -r image:=/camera/image_raw -r camera_info:=/camera/camera_info
#
# The distribution's messages are compiled for Ubuntu's numpy 1, localizer_ros needs numpy 2: so rclpy and the messages come as wheels
# here, and the distribution is not sourced for the node. Both speak Fast DDS on the same domain. `docker run -it
# --entrypoint /ros_entrypoint.sh localizer_ros bash` is a shell with the distribution's own tools.
FROM ros:jazzy-ros-base AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/localizer
COPY requirements requirements
COPY tools/build_messages.sh tools/build_messages.sh
COPY tools/messages tools/messages
# What changes seldom comes first, so that it is not built again.
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/ros.txt \
    && tools/build_messages.sh .venv
COPY setup.py setup.cfg pyproject.toml package.xml README.md LICENSE ./
COPY resource resource
COPY launch launch
COPY config config
COPY localizer_ros localizer_ros
RUN .venv/bin/pip install --no-cache-dir .

FROM ros:jazzy-ros-base
COPY --from=build /opt/localizer/.venv /opt/localizer/.venv
COPY config/fastdds.xml /opt/localizer/config/fastdds.xml
# Shared memory large enough for camera images: without it Fast DDS loses about every second raw frame.
ENV FASTRTPS_DEFAULT_PROFILES_FILE=/opt/localizer/config/fastdds.xml \
    PATH=/opt/localizer/.venv/bin:$PATH
ENTRYPOINT ["/opt/localizer/.venv/bin/localizer"]
CMD ["--help"]
