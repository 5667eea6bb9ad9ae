.PHONY: servers
servers: ## fetch the servers that the tests run on besides the installed one
	@tests/servers/fetch
