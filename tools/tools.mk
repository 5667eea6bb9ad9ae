.PHONY: layers layouts format format-check lint asan tsan
layouts: ## print the layout table of a server: SRC=its source tree
	@tools/layouts/generate $(SRC)

layers: ## check that calls go downward only
	tools/check-layers

SOURCES := $(wildcard module/*.[ch] src/*.[ch] src/*/*.[ch] tests/*/*.[ch] bench/*.[ch])
format: ## format all sources
	clang-format -i $(SOURCES)

format-check: ## say which sources are not formatted
	clang-format --dry-run --Werror $(SOURCES)

lint: ## cppcheck and clang-tidy with the committed configuration
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
	    --inline-suppr --suppressions-list=.cppcheck-suppressions \
	    -Isrc -Imodule -D_GNU_SOURCE module src
	clang-tidy --quiet --warnings-as-errors='*' $(MODULE_SOURCES) -- $(STANDARD) 2>/dev/null
