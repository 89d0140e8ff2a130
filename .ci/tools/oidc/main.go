// Oidc is the example provider of zitadel/oidc, an OpenID Connect server, for tests: on loopback, over plain
// HTTP, with the issuer that it is told.
package main

import (
	"flag"
	"log/slog"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	issuer := flag.String("issuer", "", "`URL`, as tokens name it")
	redirect := flag.String("redirect", "", "`URL` that logins end at")
	flag.Parse()
	storage.RegisterClients(storage.WebClient("web", "secret", *redirect))
	store := storage.NewStorage(storage.NewUserStore(*issuer))
	handler := exampleop.SetupServer(*issuer, store, slog.New(slog.DiscardHandler), false)
	if err := http.ListenAndServe(*listen, handler); err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("listening", "err", err)
		os.Exit(1)
	}
}
