package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"torno.internal/images/rootfs"
)

// An imageLock is one torno image lock.
type imageLock struct {
	name, file string
	include    []string
	update     bool
}

func newImageLockCommand() *cobra.Command {
	var l imageLock
	cmd := &cobra.Command{
		Use: "lock [--update] [--name NAME] [--file FILE]", Short: "Lock the packages that an image is made of", Args: exactArgs(0),
		Long: `Lock the packages that an image is made of: names, versions and SHA-256.

"torno image build" makes the image of exactly these, and of the same lock the
same file system. The first build writes the lock, beside the images, as
NAME.lock.json; a copy under version control, given to --lock, makes the same
image elsewhere.

Distributions take old versions away. A build that finds one gone says which;
--update chooses the newest anew, trusted by the signatures that apt checks, and
says what is different.`,
		Example: "  torno image lock\n  torno image lock --update --file torno-image.lock && torno image build --lock torno-image.lock",
		RunE:    func(cmd *cobra.Command, _ []string) error { return l.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&l.name, "name", rootfs.Base, "the image's `name`")
	f.StringVar(&l.file, "file", "", "the lock (default: the image's own)")
	f.StringArrayVar(&l.include, "include", nil, "Debian `package` to add to the base image's (repeat for more)")
	f.BoolVar(&l.update, "update", false, "choose the newest versions anew")
	_ = cmd.RegisterFlagCompletionFunc("name", completeImages)
	return cmd
}

func (l *imageLock) run(cmd *cobra.Command) error {
	place, err := rootfs.Place()
	if err != nil {
		return err
	}
	if err := rootfs.CheckName(l.name); err != nil {
		return err
	}
	store := rootfs.Store{Dir: place, Waiting: say}
	if l.file == "" {
		l.file = store.LockPath(l.name)
	}
	old, err := rootfs.ReadLock(l.file)
	switch {
	case err == nil && !l.update:
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d packages of %s, from %s\n", l.file, len(old.Packages), old.Suite, old.Time.Local().Format("2006-01-02"))
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !l.update:
		return err
	case err != nil:
		old = &rootfs.Lock{}
	}
	include := rootfs.Includes(l.include)
	if len(l.include) == 0 && len(old.Include) > 0 {
		include = old.Include
	}
	lock, err := store.Resolve(cmd.Context(), include)
	if err != nil {
		return err
	}
	changes := old.Changes(lock)
	if len(old.Packages) > 0 {
		for _, c := range changes {
			fmt.Fprintln(cmd.OutOrStdout(), c)
		}
		if len(changes) == 0 { // the time alone would change the image
			fmt.Fprintf(cmd.OutOrStdout(), "%s: nothing is newer\n", l.file)
			return nil
		}
	}
	if err := lock.Write(l.file); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %d packages of %s\n", l.file, len(lock.Packages), lock.Suite)
	return nil
}
