// Package pluginpb is what torno's broker and plugins say to each other, generated from broker/plugin/plugin.proto.
package pluginpb

//go:generate go run -C ../../../.ci/tools/proto . ../../../broker/plugin/plugin.proto ../../../broker/internal/pluginpb
