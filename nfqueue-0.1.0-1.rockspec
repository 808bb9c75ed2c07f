rockspec_format = "3.0"
package = "nfqueue"
version = "0.1.0-1"
source = {
  url = "git+https://github.com/nfqueue/nfqueue.git",
  tag = "v0.1.0",
}
description = {
  summary = "Decide the fate of packets on Linux in Lua",
  detailed = [[
A C core runs one netlink loop per netfilter queue and hands each packet to a Lua handler that accepts,
drops or modifies it. The module, and the command `nfqueue run handler.lua -q 0-3`.
It needs Debian's libmnl-dev, libnetfilter-queue-dev and libnetfilter-conntrack-dev (or their like) to build, and uses libpcap, libcap-ng and libseccomp where pkg-config finds them;
the command's options are
read with argparse (Debian's lua-argparse), which is looked for at run time.]],
  license = "MIT",
  labels = { "linux", "network", "netfilter" },
}
supported_platforms = { "linux" }
dependencies = { "lua >= 5.4, < 5.6" }
external_dependencies = {
  LIBMNL = { header = "libmnl/libmnl.h" },
  NETFILTER_CONNTRACK = { header = "libnetfilter_conntrack/libnetfilter_conntrack.h" },
  NETFILTER_QUEUE = { header = "libnetfilter_queue/libnetfilter_queue.h" },
}
build = {
  type = "make",
  build_variables = {
    CFLAGS = "$(CFLAGS)",
    LUA_CFLAGS = "-I$(LUA_INCDIR)",
  },
  install_variables = {
    BINDIR = "$(BINDIR)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
    UNITDIR = "$(LUADIR)/nfqueue/systemd",
    LUA_CFLAGS = "-I$(LUA_INCDIR)",
    CFLAGS = "$(CFLAGS)",
  },
}
test = { type = "command", script = "spec/run.lua" }
