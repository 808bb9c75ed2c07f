# nfqueue. `make demo` shows it working, `make test` proves it; both install what is missing (see deps).
VERSION = 0.1.0

CC ?= cc
CFLAGS ?= -O2 -g
LDFLAGS ?=
PREFIX ?= /usr/local
DESTDIR ?=
LUA ?= lua5.4
# Where an installation puts things; LuaRocks sets these itself.
BINDIR ?= $(PREFIX)/bin
LUADIR ?= $(PREFIX)/share/lua/5.4
LIBDIR ?= $(PREFIX)/lib/lua/5.4
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Everything made goes here.
BUILD ?= build

V ?= 0
ifeq ($(V),0)
Q = @
say = @printf '  %-6s %s\n'
else
Q =
say = @:
endif

# Optional ones are used where pkg-config finds them; without one, what needs it says so by name.
OPTIONAL := $(foreach library,libpcap libcap-ng libseccomp,$(shell pkg-config --exists $(library) && echo $(library)))
LIBRARIES = libmnl libnetfilter_queue libnetfilter_conntrack $(OPTIONAL)
FEATURES = $(if $(filter libpcap,$(OPTIONAL)),-DNQ_HAVE_PCAP) \
	$(if $(filter libcap-ng,$(OPTIONAL)),-DNQ_HAVE_CAPNG) \
	$(if $(filter libseccomp,$(OPTIONAL)),-DNQ_HAVE_SECCOMP)
LUA_CFLAGS ?= $(shell pkg-config --cflags lua5.4)
LUA_LIBS ?= $(shell pkg-config --libs lua5.4)
# Own flags stand apart: CFLAGS belongs to whoever builds.
WARNINGS = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
HARDENING = -fstack-protector-strong -D_FORTIFY_SOURCE=2
OWN_CFLAGS = -std=c11 -D_GNU_SOURCE -DNQ_VERSION='"$(VERSION)"' $(FEATURES) -Isrc -fPIC -fvisibility=hidden \
	-pthread $(WARNINGS) $(HARDENING) $(EXTRA_CFLAGS)
OWN_LDFLAGS = -pthread -Wl,-z,relro,-z,now $(EXTRA_LDFLAGS)

CORE = $(sort $(wildcard src/*/*.c))
OBJECTS = $(CORE:src/%.c=$(BUILD)/obj/%.o)
COMMAND = $(BUILD)/bin/nfqueue
MODULE = $(BUILD)/lib/nfqueue/core.so

all: $(COMMAND) $(MODULE)

# Written when an optional library has come or gone since: then all is built again.
$(BUILD)/optional: FORCE
	@mkdir -p $(@D)
	@echo '$(OPTIONAL)' | cmp -s - $@ || echo '$(OPTIONAL)' >$@

$(BUILD)/obj/%.o: src/%.c Makefile $(BUILD)/optional
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(OWN_CFLAGS) $(LUA_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The command exports Lua's interface, so that C modules that handlers require find it.
$(COMMAND): $(OBJECTS) $(BUILD)/obj/main.o
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LUA_LIBS) $$(pkg-config --libs $(LIBRARIES)) -lm

# The module links no Lua of its own: the interpreter that loads it has one.
$(MODULE): $(OBJECTS)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -shared -Wl,-z,nodelete -o $@ $^ $$(pkg-config --libs $(LIBRARIES)) -lm

-include $(wildcard $(BUILD)/obj/*.d $(BUILD)/obj/*/*.d)

# --- What is needed, as Debian packages ---------------------------------------------------------------

BUILD_PACKAGES = gcc libc6-dev pkg-config liblua5.4-dev libmnl-dev libnetfilter-queue-dev \
	libnetfilter-conntrack-dev libpcap-dev libcap-ng-dev libseccomp-dev
RUN_PACKAGES = lua5.4 lua-argparse iproute2 iptables
DEMO_PACKAGES = iputils-ping curl busybox-static
TEST_PACKAGES = bind9-dnsutils mount lua-busted lua-luv lua-cqueues lua-socket luarocks nftables procps util-linux iperf3 \
	netcat-openbsd socat tcpdump ethtool nginx-light
# Whose reading and making of packets ours is held against; specs that use them are pending without.
COMPARE_PACKAGES = python3-scapy tshark
LINT_PACKAGES = lua-check clang-format cppcheck clang
FUZZ_PACKAGES = clang libclang-rt-dev llvm

deps-build: PACKAGES = $(BUILD_PACKAGES) $(RUN_PACKAGES)
deps-demo: PACKAGES = $(BUILD_PACKAGES) $(RUN_PACKAGES) $(DEMO_PACKAGES)
deps deps-test: PACKAGES = $(BUILD_PACKAGES) $(RUN_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES) \
	$(COMPARE_PACKAGES)
deps-compare: PACKAGES = $(BUILD_PACKAGES) $(RUN_PACKAGES) $(COMPARE_PACKAGES)
deps-lint: PACKAGES = $(BUILD_PACKAGES) $(LINT_PACKAGES)
deps-fuzz: PACKAGES = $(BUILD_PACKAGES) $(FUZZ_PACKAGES)
deps deps-build deps-demo deps-test deps-compare deps-lint deps-fuzz:
	@sh spec/support/deps.sh $(PACKAGES)

# --- The two commands -----------------------------------------------------------------------------------

demo: deps-demo
	@$(MAKE) --no-print-directory -s all
	@sh spec/support/demo.sh $(BUILD)

test: deps-test
	@$(MAKE) --no-print-directory all support
	@NFQUEUE_BUILD=$(BUILD) $(LUA) spec/run.lua $(SPECS)

# Programs that specs use.
support: $(addprefix $(BUILD)/support/,relay numbered cast arrivals mutants manager dying.so failing.so clockstep.so) \
	$(BUILD)/bin/nfqueue-newer $(BUILD)/threads $(BUILD)/hostile $(BUILD)/faults

# The command as a later version: another file, which says so.
$(BUILD)/support/module.o: src/lua/module.c Makefile
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) $(OWN_CFLAGS) $(LUA_CFLAGS) $(CFLAGS) -UNQ_VERSION -DNQ_VERSION='"$(VERSION)+newer"' -c -o $@ $<

$(BUILD)/bin/nfqueue-newer: $(OBJECTS:$(BUILD)/obj/lua/module.o=$(BUILD)/support/module.o) $(BUILD)/obj/main.o
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LUA_LIBS) $$(pkg-config --libs $(LIBRARIES)) -lm

$(BUILD)/support/%.so: spec/support/%.c
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARNINGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

$(BUILD)/support/%: spec/support/%.c
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARNINGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

# --- Checks ---------------------------------------------------------------------------------------------

C_FILES = $(wildcard src/*.c src/*/*.[ch] spec/*/*.[ch] spec/*/*/*.[ch])

lint: deps-lint
	@echo "lint: warnings as errors"
	@$(MAKE) --no-print-directory -s all BUILD=build/lint CFLAGS="-O2 -Werror -Wconversion -Wno-sign-conversion"
	@echo "lint: includes point one way"
	@sh spec/support/check-includes.sh
	@echo "lint: clang-format"
	@clang-format --dry-run -Werror $(C_FILES)
	@echo "lint: cppcheck"
	@cppcheck -q --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem -DNQ_VERSION='""' -DNQ_HAVE_PCAP -DNQ_HAVE_CAPNG -DNQ_HAVE_SECCOMP -Isrc src
	@echo "lint: clang --analyze"
	@ls src/*.c src/*/*.c | xargs -P "$$(nproc)" -I{} clang --analyze --analyzer-output text -Xclang -analyzer-werror \
		-std=c11 -D_GNU_SOURCE '-DNQ_VERSION=""' $(FEATURES) -Isrc $(LUA_CFLAGS) -include spec/support/analyze.h {}
	@echo "lint: luacheck"
	@luacheck -q lua scripts spec *.rockspec

SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

# The specs again, on a build whose every access is watched, and hostile messages into the parser.
asan: deps-test
	@$(MAKE) --no-print-directory all support BUILD=build/asan CFLAGS="-O1 -g" HARDENING= \
		EXTRA_CFLAGS="$(SANITIZE)" EXTRA_LDFLAGS="$(SANITIZE)"
	@$(MAKE) --no-print-directory hostile replay BUILD=build/asan CFLAGS="-O1 -g" HARDENING= \
		EXTRA_CFLAGS="$(SANITIZE)" EXTRA_LDFLAGS="$(SANITIZE)"
	@NFQUEUE_BUILD=build/asan NFQUEUE_SANITIZE=address $(LUA) spec/run.lua $(SPECS)

COVERAGE = --coverage -fprofile-update=atomic -include spec/coverage/exit.h

# The specs on a build that counts which lines run; fails below 90 %, or when lines that have not run are not accounted
# for in spec/coverage/uncovered.txt. Whoever the specs become must be able to write the counts.
coverage: deps-test
	@$(MAKE) --no-print-directory all support BUILD=build/coverage CFLAGS="-O0 -g" HARDENING= \
		EXTRA_CFLAGS="$(COVERAGE)" EXTRA_LDFLAGS=--coverage
	@find build/coverage -name '*.gcda' -delete
	@umask 0; status=0; \
	GCOV_ERROR_FILE=/dev/null NFQUEUE_BUILD=build/coverage $(LUA) spec/run.lua $(SPECS) || status=1; \
	$(LUA) spec/coverage/report.lua build/coverage && exit $$status

# Specs in which threads, signals, reload and stop meet. (Not runaway: signals to a busy thread come late here.)
TSAN_SPECS = $(patsubst %,spec/kernel/%_spec.lua,run_threads shared_threads rewrite_threads balance pcap timer \
	hold_end stop signals reload reload_refused memory_limit)

# Tables under several threads, and those specs, on a build that watches who touches what without a lock.
tsan: deps-test
	@$(MAKE) --no-print-directory all support BUILD=build/tsan CFLAGS="-O1 -g" HARDENING= \
		EXTRA_CFLAGS=-fsanitize=thread EXTRA_LDFLAGS=-fsanitize=thread
	@TSAN_OPTIONS=halt_on_error=1 build/tsan/threads stress
	@rm -rf build/tsan/reports && mkdir -p build/tsan/reports
	@TSAN_OPTIONS=log_path=$(CURDIR)/build/tsan/reports/report NFQUEUE_BUILD=build/tsan NFQUEUE_SANITIZE=thread \
		$(LUA) spec/run.lua $(or $(SPECS),$(TSAN_SPECS))
	@! cat build/tsan/reports/* 2>/dev/null

deps-guest: PACKAGES = $(BUILD_PACKAGES) $(RUN_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES) \
	$(shell spec/guest/run --packages)
deps-guest:
	@sh spec/support/deps.sh $(PACKAGES)

# The kernel specs in Debian's own kernel, under emulation: nft queue, conntrack, bridges, netem, SELinux.
test-guest: deps-guest
	@$(MAKE) --no-print-directory all support
	@sh spec/guest/test.sh $(SPECS)

HOSTILE_OBJECTS = $(filter-out $(BUILD)/obj/lua/%,$(OBJECTS))

# What hostile and the targets of fuzz share.
FUZZ_OBJECTS = $(patsubst spec/%.c,$(BUILD)/obj/spec/%.o,\
	$(filter-out %/hostile.c %/replay.c %/cover.c %/lua_target.c,$(wildcard spec/fuzz/*.c)))

$(BUILD)/obj/spec/%.o: spec/%.c Makefile
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(OWN_CFLAGS) $(LUA_CFLAGS) -Ispec/fuzz $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(wildcard $(BUILD)/obj/spec/*/*.d $(BUILD)/obj/spec/*/*/*.d)

$(BUILD)/hostile: $(BUILD)/obj/spec/fuzz/hostile.o $(FUZZ_OBJECTS) $(HOSTILE_OBJECTS)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs $(LIBRARIES)) -lm

hostile: $(BUILD)/hostile
	@$(BUILD)/hostile

# A target is a file in spec/fuzz/targets with libFuzzer's entry point; replay.c runs it once over
# files, for which any compiler will do, and cover.c chooses the corpus.
TARGETS = $(patsubst spec/fuzz/targets/%.c,%,$(wildcard spec/fuzz/targets/*.c))
TARGET_MAIN = $(BUILD)/obj/spec/fuzz/replay.o
TARGET_FOLDER = $(BUILD)/targets

$(TARGET_FOLDER)/%: $(BUILD)/obj/spec/fuzz/targets/%.o $(BUILD)/obj/spec/fuzz/lua_target.o \
		$(FUZZ_OBJECTS) $(OBJECTS) $(TARGET_MAIN)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LUA_LIBS) $$(pkg-config --libs $(LIBRARIES)) -lm

targets: $(TARGETS:%=$(TARGET_FOLDER)/%)

.SECONDARY: $(TARGETS:%=$(BUILD)/obj/spec/fuzz/targets/%.o)

FUZZ = CC=clang BUILD=build/fuzz CFLAGS="-O1 -g" HARDENING= \
	EXTRA_CFLAGS="$(SANITIZE) -fsanitize=fuzzer-no-link"

# Hostile bytes that libFuzzer makes, for FUZZ_SECONDS in all, beginning with the corpus.
fuzz: deps-fuzz
	@$(MAKE) --no-print-directory targets $(FUZZ) EXTRA_LDFLAGS="$(SANITIZE) -fsanitize=fuzzer" TARGET_MAIN=
	@sh spec/fuzz/run.sh fuzz $(TARGETS)

# What of the last runs reaches code that the corpus does not becomes part of it.
fuzz-corpus: deps-fuzz
	@$(MAKE) --no-print-directory targets $(FUZZ) EXTRA_LDFLAGS="$(SANITIZE)" \
		TARGET_FOLDER=build/fuzz/cover TARGET_MAIN=build/fuzz/obj/spec/fuzz/cover.o
	@sh spec/fuzz/run.sh corpus $(TARGETS)

# The corpus once, in any build.
replay: targets
	@BUILD=$(BUILD) sh spec/fuzz/run.sh replay $(TARGETS)

# The core with its allocations and system calls led to spec/faults/wraps.c, which has them fail.
FAULT_CALLS = malloc calloc realloc strdup strndup free mmap munmap luaL_newstate socket bind send sendmsg recvmmsg \
	epoll_create1 epoll_ctl epoll_wait eventfd timerfd_create timerfd_settime poll read write open pread \
	pthread_create setsockopt getsockopt nanosleep nq_log
FAULT_OBJECTS = $(patsubst spec/%.c,$(BUILD)/obj/spec/%.o,$(wildcard spec/faults/*.c))

$(BUILD)/faults: $(FAULT_OBJECTS) $(BUILD)/obj/spec/fuzz/samples.o $(OBJECTS)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_LDFLAGS) $(CFLAGS) $(LDFLAGS) $(FAULT_CALLS:%=-Wl,--wrap=%) -o $@ $^ \
		$(LUA_LIBS) $$(pkg-config --libs $(LIBRARIES)) -lm

TABLE_OBJECTS = $(filter $(BUILD)/obj/table/% $(BUILD)/obj/packet/%,$(OBJECTS))

# What soaks use besides what specs do.
SOAK_PROGRAMS = $(BUILD)/bench/flood

$(BUILD)/threads: $(wildcard spec/threads/*.c) spec/threads/threads.h $(TABLE_OBJECTS)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_CFLAGS) $(CFLAGS) $(OWN_LDFLAGS) $(LDFLAGS) -o $@ $(filter-out %.h,$^) $$(pkg-config --libs $(LIBRARIES)) -lm

# The long tests of spec/soak/: all, or SOAK=NAME; SOAK_SCALE=0.01 makes them a hundred times shorter.
soak: deps-test
	@$(MAKE) --no-print-directory -s all support $(SOAK_PROGRAMS)
	@NFQUEUE_BUILD=$(BUILD) $(LUA) spec/soak/run.lua $(SOAK)

# Resident memory of tables while everything in them comes and goes, for ten minutes.
churn: deps-build
	@$(MAKE) --no-print-directory -s $(BUILD)/threads
	@$(BUILD)/threads churn 600

$(BUILD)/bench/plain: spec/bench/plain.c
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -D_GNU_SOURCE -O2 -o $@ $< $$(pkg-config --libs $(LIBRARIES))

$(BUILD)/bench/loop: spec/bench/loop.c $(HOSTILE_OBJECTS)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(OWN_CFLAGS) $(CFLAGS) $(OWN_LDFLAGS) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs $(LIBRARIES)) -lm

$(BUILD)/bench/flood: spec/bench/flood.c
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -D_GNU_SOURCE -O2 -o $@ $<

$(BUILD)/bench/lateness: spec/bench/lateness.c
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) -D_GNU_SOURCE -O2 -pthread -o $@ $<

# CPU time per packet beside a plain C loop, and of single operations beside string.unpack and scapy.
bench: deps-test
	@$(MAKE) --no-print-directory all $(BUILD)/bench/plain $(BUILD)/bench/loop $(BUILD)/bench/flood \
		$(BUILD)/bench/lateness
	@NFQUEUE_BUILD=$(BUILD) $(LUA) spec/bench/run.lua
	@NFQUEUE_BUILD=$(BUILD) $(LUA) spec/bench/packet.lua
	@$(MAKE) --no-print-directory bench-tables

# Debian source packages with captures; 176 MB are fetched once, into $(BUILD)/compare.
COLLECTIONS ?= tcpdump wireshark tcpflow ndpi

# Every field read from every packet of other projects' captures, held against what scapy and tshark read.
compare: deps-compare
	@$(MAKE) --no-print-directory all
	@sh spec/compare/fetch.sh $(BUILD)/compare $(COLLECTIONS)
	@LUA_PATH="lua/?.lua;lua/?/init.lua;spec/?.lua;;" LUA_CPATH="$(BUILD)/lib/?.so;;" \
		$(LUA) spec/compare/run.lua $(BUILD)/compare $(COLLECTIONS)

# Stores, buckets and sets: nanoseconds an operation, alone and with other threads; a million entries.
bench-tables: deps-test
	@$(MAKE) --no-print-directory all $(BUILD)/threads
	@NFQUEUE_BUILD=$(BUILD) $(LUA) spec/bench/shared.lua
	@NFQUEUE_BUILD=$(BUILD) $(LUA) spec/bench/sets.lua

# --- Installation ---------------------------------------------------------------------------------------

LUA_FILES = $(shell cd lua && find nfqueue -name '*.lua')
SCRIPTS = $(wildcard scripts/*.lua)

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/nfqueue $(DESTDIR)$(LUADIR)/nfqueue/scripts
	install -m 755 $(COMMAND) $(DESTDIR)$(BINDIR)/nfqueue
	install -m 755 $(MODULE) $(DESTDIR)$(LIBDIR)/nfqueue/core.so
	for f in $(LUA_FILES); do install -D -m 644 lua/$$f $(DESTDIR)$(LUADIR)/$$f || exit 1; done
	install -m 644 $(SCRIPTS) $(DESTDIR)$(LUADIR)/nfqueue/scripts
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@BINDIR@|$(BINDIR)|' 'scripts/systemd/nfqueue@.service' >'$(DESTDIR)$(UNITDIR)/nfqueue@.service'

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/nfqueue '$(DESTDIR)$(UNITDIR)/nfqueue@.service'
	rm -rf $(DESTDIR)$(LIBDIR)/nfqueue $(DESTDIR)$(LUADIR)/nfqueue

dist:
	@mkdir -p build
	git archive --format=tar.gz --prefix=nfqueue-$(VERSION)/ -o build/nfqueue-$(VERSION).tar.gz HEAD

clean:
	rm -rf build

.PHONY: FORCE all deps deps-build deps-demo deps-test deps-compare deps-lint deps-fuzz deps-guest demo support test test-guest \
	lint asan tsan coverage hostile targets fuzz fuzz-corpus replay soak churn bench bench-tables compare install \
	uninstall dist clean
