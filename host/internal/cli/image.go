package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/images/kernel"
	"torno.internal/images/rootfs"
)

func newImageCommand() *cobra.Command {
	return group("image", "Make, list and remove what VMs boot from", newImageBuildCommand(), newImageListCommand(), newImageLockCommand(), newImageRemoveCommand())
}

func newImageBuildCommand() *cobra.Command {
	var b imageBuild
	cmd := &cobra.Command{
		Use: "build [--name NAME] [--from DIRECTORY|ARCHIVE]", Short: "Build an image", Args: exactArgs(0),
		Long: `Build an image: the root file system of a VM, which it sees read-only.

Without --from this is the base image: Debian's packages of this machine's own
release, with Python, Node.js, curl, git and ssh, put together by mmdebstrap. It
needs no container engine, and no root where users may have namespaces. The
kernel is got as well. --include adds packages. Which versions it is made of is
locked: "torno image lock" says more.

--from makes an image of a root file system, as a directory or an archive such
as "docker export CONTAINER" writes, or of a container image: an OCI image
layout, as a directory or an archive, or what "docker save" writes. Archives may
be compressed by gzip or zstd. Container images are checked by their digests;
of those for several machines the one for this is taken, and --tag says which
where there are several. torno's guest need not be in it: VMs bring it along.

An image that is being used may be built anew: running VMs keep the old one.
Images are in $TORNO_IMAGES, for root by default in /var/lib/torno/images.`,
		Example: `  torno image build
  torno image build --name docker --include docker.io --include iptables
  docker export my-container > my.tar && torno image build --name my-image --from my.tar
  skopeo copy docker://debian:12 oci:debian && torno image build --name debian --from debian`,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&b.name, "name", rootfs.Base, "the image's `name`")
	f.StringVar(&b.from, "from", "", "root file system or container image: a `path`; -: an archive on standard input")
	f.StringVar(&b.tag, "tag", "", "`tag` of the container image to take")
	f.StringArrayVar(&b.include, "include", nil, "Debian `package` to add to the base image's (repeat for more)")
	f.StringVar(&b.lock, "lock", "", "lock `file` to build from (default: the image's own, see torno image lock)")
	f.BoolVar(&b.ifMissing, "if-missing", false, "leave an image that is there alone")
	_ = cmd.RegisterFlagCompletionFunc("name", completeImages)
	return cmd
}

// An imageBuild is one torno image build.
type imageBuild struct {
	name, from, tag string
	lock            string
	include         []string
	ifMissing       bool
}

func (b *imageBuild) run(cmd *cobra.Command) error {
	switch {
	case b.tag != "" && b.from == "":
		return usageError{&hintError{errors.New("--tag without --from"), "--from PATH names the container images that it chooses from"}}
	case b.from != "" && (b.lock != "" || len(b.include) > 0):
		return usageError{&hintError{errors.New("--lock and --include are about Debian's packages, and --from is of something else"), "leave out --from"}}
	}
	place, err := rootfs.Place()
	if err != nil {
		return err
	}
	if _, err := new(launch).findKernel(cmd.Context(), place); err != nil {
		return err
	}
	store := rootfs.Store{Dir: place, Waiting: say}
	if _, err := store.Open(b.name); b.ifMissing && err == nil {
		return nil
	}
	began := time.Now()
	image, err := b.make(cmd, store)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "image %s: %s from %s in %v\n", image.Name, mebibytes(image.Size), image.Source, time.Since(began).Round(100*time.Millisecond))
	return nil
}

func (b *imageBuild) make(cmd *cobra.Command, store rootfs.Store) (*rootfs.Image, error) {
	switch b.from {
	case "":
		build := rootfs.Build{Name: b.name, Lock: b.lock, Missing: b.ifMissing}
		if len(b.include) > 0 {
			build.Include = rootfs.Includes(b.include)
		}
		return buildPackages(cmd.Context(), store, build)
	case "-":
		return importImage(cmd.Context(), store, b.name, rootfs.From{Path: "standard input", Tag: b.tag, In: cmd.InOrStdin()})
	}
	return importImage(cmd.Context(), store, b.name, rootfs.From{Path: b.from, Tag: b.tag})
}

func importImage(ctx context.Context, store rootfs.Store, name string, from rootfs.From) (*rootfs.Image, error) {
	m := newMeter(os.Stderr)
	defer m.end()
	if m.live { // where nobody looks, there is nothing to say but the result
		from.Report = m.report
	}
	return store.Import(ctx, name, from)
}

// buildPackages builds an image of Debian's packages. What mmdebstrap says is shown where it failed.
func buildPackages(ctx context.Context, store rootfs.Store, b rootfs.Build) (*rootfs.Image, error) {
	say("building the image " + b.Name + " of Debian's packages")
	m := newMeter(os.Stderr)
	defer m.end()
	output := &tailBuffer{limit: 4 << 10}
	b.Report, b.Output = m.report, output
	image, err := store.Build(ctx, b)
	if err != nil && output.String() != "" {
		m.end()
		err = fmt.Errorf("%w\n%s", err, output.String())
	}
	return image, err
}

func newImageListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List images and kernels", Args: exactArgs(0),
		Long:    "List the images and kernels that VMs can boot from.",
		Example: "  torno image list\n  torno image list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			place, err := rootfs.Place()
			if err != nil {
				return err
			}
			images, err := rootfs.Store{Dir: place}.List()
			if err != nil {
				return err
			}
			kernels, err := kernel.Store{Dir: filepath.Join(place, ".kernels")}.List()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"images": images, "kernels": kernels})
			}
			var rows [][]string
			for _, i := range images {
				rows = append(rows, []string{"image", i.Name, mebibytes(i.Size), i.Filesystem, i.Arch, i.Created.Local().Format(time.DateTime), short(i.SHA256), i.Source})
			}
			for _, k := range kernels {
				rows = append(rows, []string{"kernel", k.Release, mebibytes(k.Image.Size), "", k.Arch, k.Built.Local().Format(time.DateTime), short(k.SHA256), k.Source + ", " + strconv.Itoa(len(k.Modules)) + " modules"})
			}
			if len(rows) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "hint: torno image build")
			}
			return printTable(cmd.OutOrStdout(), []string{"KIND", "NAME", "SIZE", "FS", "ARCH", "BUILT", "SHA-256", "FROM"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// short returns as much of a digest as people compare.
func short(digest string) string { return digest[:min(len(digest), 12)] }

func newImageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME…", Short: "Remove images", Args: cobra.MinimumNArgs(1),
		Long:    "Remove images. VMs that run from one go on; the base image is built again when it is wanted.",
		Example: "  torno image remove my-image",
		RunE: func(cmd *cobra.Command, args []string) error {
			place, err := rootfs.Place()
			if err != nil {
				return err
			}
			store := rootfs.Store{Dir: place, Waiting: say}
			for _, name := range args {
				if err := store.Remove(cmd.Context(), name); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "removed image %s\n", name)
			}
			return nil
		},
		ValidArgsFunction: completeImages,
	}
}

// completeImages completes the names of images.
func completeImages(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	place, err := rootfs.Place()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	images, _ := rootfs.Store{Dir: place}.List()
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
