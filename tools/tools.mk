.PHONY: layers layouts docs pictures documents format format-check lint asan tsan
layouts: $(if $(SRC),,$(BUILD)/tools/layouts/from_binary) ## print the layout of a server, compare it with what is known: SRC=its source tree, or BIN=its program (docs/SERVERS.md)
	@$(if $(SRC),tools/layouts/generate $(SRC),$(if $(BIN),$(BUILD)/tools/layouts/from_binary \
		$(if $(FORM),--$(FORM)) $(BIN) $(if $(DEBUG)$(SERVER_IS),"$(DEBUG)") $(SERVER_IS),\
		echo "make layouts SRC=source-tree, or BIN=program" >&2; exit 1))

.PHONY: matrix
matrix: ## write the matrix of docs/SERVERS.md from what tests ran: RESULTS=what make test printed
	@tools/matrix $(RESULTS)

# Reads debug information: needs libdw-dev.
$(BUILD)/tools/layouts/%.o: CFLAGS += -Itools/layouts
$(BUILD)/tools/layouts/from_binary: $(BUILD)/tools/layouts/from_binary.o \
		$(BUILD)/tools/layouts/debug_info.o $(BUILD)/src/kernel/fault_points.o
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -ldw -lelf
-include $(wildcard $(BUILD)/tools/layouts/*.d)

layers: $(PLACE)rdb_uffd.so $(BENCH_OBJECTS) ## check that calls go downward only, in no circle, to functions that are needed, and of the fault server to nothing that waits
	@tools/check-layers
	@tools/check-calls $(BUILD) $(MODULE_OBJECTS)
	@tools/check-calls $(BUILD) $(BENCH_OBJECTS)
	@tools/check-reach $(PLACE)rdb_uffd.so

docs: ## write what is said of settings and INFO fields, from docs/reference
	tools/write-reference .

PICTURES := $(patsubst %.dot,%.svg,$(wildcard docs/pictures/*.dot))
pictures: $(PICTURES) ## draw the documents' pictures from their sources (Graphviz)
docs/pictures/%.svg: docs/pictures/%.dot
	{ dot -Tsvg $< | sed '/<!-- Generated/,/-->/d'; echo "<!-- $$(md5sum <$<) -->"; } >$@

.PHONY: terminal-picture
terminal-picture: rdb_uffd.so uffd-watch ## record anew what the README shows of uffd-watch (tmux)
	tools/record-terminal docs/pictures/uffd-watch.svg

documents: ## check that what the documents name is there
	tools/check-documents

SOURCES := $(wildcard module/*.[ch] src/*.[ch] src/*/*.[ch] tests/*/*.[ch] bench/*.[ch] \
	tools/*/*.[ch])
format: ## format all sources
	clang-format -i $(SOURCES)

format-check: ## say which sources are not formatted
	clang-format --dry-run --Werror $(SOURCES)

lint: documents ## the documents; cppcheck and clang-tidy with the committed configuration
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
	    --inline-suppr --suppressions-list=.cppcheck-suppressions \
	    -D__x86_64__ -Isrc -Imodule -D_GNU_SOURCE module src tools/uffd-watch
	clang-tidy --quiet --warnings-as-errors='*' $(MODULE_SOURCES) \
	    $(wildcard tools/uffd-watch/*.c) -- $(STANDARD) 2>/dev/null

# Unit tests with sanitizers, built apart. What is read while others write it, by design, is
# read by guarded_copy(), into which ThreadSanitizer does not see. That it cannot follow
# fences, and what the compiler takes for uninitialized with less optimization, is no error.
SANITIZED = $(MAKE) --no-print-directory unit BUILD=build/$@ \
	CFLAGS="-O1 -g -fno-omit-frame-pointer -Wno-error=maybe-uninitialized $(1)"
asan: ## unit tests with AddressSanitizer and UndefinedBehaviorSanitizer
	$(call SANITIZED,-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined)

tsan: ## unit tests with ThreadSanitizer
	$(call SANITIZED,-fsanitize=thread -Wno-error=tsan)

check: layers format-check lint ## everything that needs no run

.PHONY: check upstream-tests
upstream-tests: rdb_uffd.so ## the server's own tests, without and with the module (hours: UNITS="unit/dump …")
	@tools/upstream-tests $(UNITS)

# uffd-watch: hiredis only, nothing of src/. TLS where hiredis_ssl and OpenSSL are there:
# Debian's libhiredis-dev brings the first without the second.
VERSION       := $(shell sed -n 's/^\#define RDB_UFFD_VERSION "\(.*\)"/\1/p' src/rdb_uffd.h)
WATCH_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/uffd-watch/*.c))
WATCH_TLS     := $(shell cd $(SYSROOT)/usr/include && [ -e hiredis/hiredis_ssl.h ] && [ -e openssl/ssl.h ] && echo yes)
$(BUILD)/tools/uffd-watch/%.o: override CFLAGS += -DVERSION='"$(VERSION)"' $(if $(WATCH_TLS),-DWITH_TLS)
# Where the version stands.
$(BUILD)/tools/uffd-watch/main.o: src/rdb_uffd.h
$(PLACE)uffd-watch: $(WATCH_OBJECTS) ## build the live view for the terminal
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(if $(WATCH_TLS),-lhiredis_ssl -lssl -lcrypto) -lhiredis

-include $(WATCH_OBJECTS:.o=.d)

PREFIX ?= /usr/local
# What programs read. In share/doc are texts for people only: many systems leave that out.
DATA = $(DESTDIR)$(PREFIX)/share/rdb_uffd
.PHONY: install uninstall dist
install: rdb_uffd.so uffd-watch ## install below PREFIX (/usr/local), DESTDIR for packagers
	install -D -m 0755 rdb_uffd.so $(DESTDIR)$(PREFIX)/lib/redis/modules/rdb_uffd.so
	install -D -m 0755 uffd-watch $(DESTDIR)$(PREFIX)/bin/uffd-watch
	install -d $(DATA)/prometheus $(DATA)/grafana $(DESTDIR)$(PREFIX)/share/doc/rdb_uffd
	sed 's|^loadmodule .*|loadmodule $(PREFIX)/lib/redis/modules/rdb_uffd.so|' redis-module.conf \
		>$(DATA)/redis-module.conf
	install -m 0644 packaging/seccomp/rdb_uffd.json $(DATA)/seccomp.json
	install -m 0644 packaging/systemd/rdb_uffd.conf $(DATA)/systemd-drop-in.conf
	install -m 0644 packaging/udev/60-rdb_uffd.rules $(DATA)/60-rdb_uffd.rules
	install -m 0644 packaging/prometheus/* $(DATA)/prometheus
	install -m 0644 packaging/grafana/rdb_uffd.json $(DATA)/grafana/rdb_uffd.json
	install -m 0644 docs/OPERATIONS.md docs/BACKUP.md docs/SETTINGS-AND-INFO.md \
		$(DESTDIR)$(PREFIX)/share/doc/rdb_uffd
	install -D -m 0644 docs/man/rdb_uffd.7 $(DESTDIR)$(PREFIX)/share/man/man7/rdb_uffd.7
	install -D -m 0644 docs/man/uffd-watch.1 $(DESTDIR)$(PREFIX)/share/man/man1/uffd-watch.1

uninstall: ## remove what install has put there
	rm -f $(DESTDIR)$(PREFIX)/lib/redis/modules/rdb_uffd.so $(DESTDIR)$(PREFIX)/bin/uffd-watch \
		$(DESTDIR)$(PREFIX)/share/man/man7/rdb_uffd.7 $(DESTDIR)$(PREFIX)/share/man/man1/uffd-watch.1
	rm -rf $(DATA) $(DESTDIR)$(PREFIX)/share/doc/rdb_uffd

ARCHIVE ?= rdb_uffd-$(VERSION).tar.gz
dist: ## a source archive of what is committed, the same bytes wherever it is made
	git -c tar.umask=0022 archive --format=tar --prefix=rdb_uffd-$(VERSION)/ HEAD | gzip -9n >$(ARCHIVE)

.PHONY: deb test-dist test-package test-rpm test-images
test-dist: ## make the source archive, check that it is the same everywhere and builds the same
	@tests/package/test-dist

deb: ## build the Debian package in build/deb, and let lintian look at it (ARCH=arm64: by cross build)
	@packaging/make-deb $(VERSION) $(ARCH)

test-package: ## build and install the packages in fresh trees of Debian, save there, remove them (root; RELEASES="bookworm trixie sid", ARCH=arm64: only that one)
	@ARCH="$(ARCH)" tests/package/test-package $(RELEASES)

test-rpm: ## build the rpm package, install it into a directory, save there, remove it (rpmbuild)
	@tests/package/test-rpm

test-images: ## build the images of packaging/docker with a real Docker, save in their containers (root)
	@tests/package/test-images
