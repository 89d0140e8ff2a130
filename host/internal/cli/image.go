package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/images/kernel"
	"torno.internal/images/rootfs"
)

func newImageCommand() *cobra.Command {
	return group("image", "Make and list what VMs boot from", newImageBuildCommand(), newImageListCommand())
}

func newImageBuildCommand() *cobra.Command {
	var name, from string
	var ifMissing bool
	cmd := &cobra.Command{
		Use: "build [--name NAME] [--from ROOTFS.tar]", Short: "Build an image", Args: exactArgs(0),
		Long: `Build an image: the root file system of a VM, which it sees read-only.

Without --from this is the base image: Debian's packages of this machine's own
release, with Python, Node.js, curl, git and ssh, put together by mmdebstrap. It
needs no container engine, and no root where users may have namespaces. The
kernel is got as well.

--from makes an image of an archive of a root file system, such as
"docker export CONTAINER" writes. torno's guest need not be in it: VMs bring it
along.

An image that is being used may be built anew: running VMs keep the old one.
Images are in $TORNO_IMAGES, for root by default in /var/lib/torno/images.`,
		Example: "  torno image build\n  docker export my-container > my.tar && torno image build --name my-image --from my.tar",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return buildImage(cmd, name, from, ifMissing)
		},
	}
	cmd.Flags().StringVar(&name, "name", rootfs.Base, "the image's `name`")
	cmd.Flags().StringVar(&from, "from", "", "`archive` of a root file system; -: standard input")
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "leave an image that is there alone")
	return cmd
}

func buildImage(cmd *cobra.Command, name, from string, ifMissing bool) error {
	place, err := rootfs.Place()
	if err != nil {
		return err
	}
	if _, err := new(launch).findKernel(cmd.Context(), place); err != nil {
		return err
	}
	store := rootfs.Store{Dir: place}
	if _, err := store.Open(name); ifMissing && err == nil {
		return nil
	}
	began := time.Now()
	image, err := makeImage(cmd, store, name, from)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "image %s: %s from %s in %v\n", image.Name, mebibytes(image.Size), image.Source, time.Since(began).Round(100*time.Millisecond))
	return nil
}

func makeImage(cmd *cobra.Command, store rootfs.Store, name, from string) (*rootfs.Image, error) {
	switch from {
	case "":
		if name == rootfs.Base {
			say("building the base image: half a minute and 200 MB of Debian's packages")
		}
		output := &tailBuffer{limit: 4 << 10}
		var progress io.Writer = output
		if isTerminal(os.Stderr) {
			progress = io.MultiWriter(output, os.Stderr)
		}
		image, err := store.BuildBase(cmd.Context(), name, progress)
		if err != nil && progress == output {
			err = errors.Join(err, errors.New(output.String()))
		}
		return image, err
	case "-":
		return store.FromTar(name, "standard input", cmd.InOrStdin())
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return store.FromTar(name, filepath.Base(from), f)
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
				rows = append(rows, []string{"image", i.Name, mebibytes(i.Size), i.Created.Local().Format(time.DateTime), i.Source})
			}
			for _, k := range kernels {
				rows = append(rows, []string{"kernel", k.Release, mebibytes(k.Image.Size), k.Built.Local().Format(time.DateTime), k.Source + ", " + strconv.Itoa(len(k.Modules)) + " modules"})
			}
			if len(rows) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "hint: torno image build")
			}
			return printTable(cmd.OutOrStdout(), []string{"KIND", "NAME", "SIZE", "MADE", "FROM"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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
