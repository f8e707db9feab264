/*
 * checkpoint_mirror_target.c: the files of a mirror: its target and its overlay
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A path that a client names is opened once; what was opened is judged and the very
 * descriptor is what QEMU gets, so the answers cannot change in between.  Images are
 * looked into by qemu-img alone, always with the format given: a raw replica holds
 * whatever its guest wrote, and must not be taken for a chain of images.
 *
 * "In use" is asked of the kernel: QEMU holds open-file-description locks on the
 * bytes from 100 (permissions used) and from 200 (permissions shared) of each image
 * (QEMU's block/file-posix.c, since 2.10).  Our own descriptor goes to QEMU by dup, so
 * QEMU's lock and ours never conflict.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_json.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_process.h"

#define VIR_CHECKPOINT_QEMU_LOCK_START 100
#define VIR_CHECKPOINT_QEMU_LOCK_LENGTH 200

/* Of all names of ours, bitmaps of segments and transient ones alike. */
#define VIR_CHECKPOINT_OUR_BITMAPS "virtcheckpoint"

/* An overlay whose file system has less than this left is asking for a paused guest. */
#define VIR_CHECKPOINT_OVERLAY_ROOM (64ULL * 1024 * 1024)

static gboolean
virCheckpointMirrorSystemError(GError **error, gint code, const gchar *what)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR, "%s: %s", what,
                g_strerror(code));
    return FALSE;
}

static gboolean
virCheckpointMirrorIsImage(const struct stat *st)
{
    return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

/* Opens @path if it is a plain file or a block device that nothing is mounted from; st
 * is what the descriptor shows. */
static int
virCheckpointMirrorOpenFile(const gchar *path,
                            const gchar *disk,
                            struct stat *st,
                            GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    int saved;

    if (stat(path, st) < 0) {
        g_autofree gchar *what =
            g_strdup_printf("missing destination file for disk %s: %s", disk, path);

        virCheckpointMirrorSystemError(error, errno, what);
        return -1;
    }
    if (virCheckpointMirrorIsImage(st))
        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK |
                            (S_ISBLK(st->st_mode) ? O_EXCL : 0));
    saved = errno;
    if (fd >= 0 && fstat(fd, st) == 0 && virCheckpointMirrorIsImage(st))
        return virCheckpointFdSteal(&fd);
    if (!virCheckpointMirrorIsImage(st)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "destination '%s' for disk %s is neither a regular file nor a block"
                    " device",
                    path, disk);
    } else if (saved == EBUSY) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY,
                    "destination '%s' is in use by the host", path);
    } else {
        g_autofree gchar *what = g_strdup_printf("open destination '%s'", path);

        virCheckpointMirrorSystemError(error, saved, what);
    }
    return -1;
}

/* A block device may have several names in several places. */
static gboolean
virCheckpointMirrorIsSame(const struct stat *one, const struct stat *other)
{
    if (S_ISBLK(one->st_mode) && S_ISBLK(other->st_mode))
        return one->st_rdev == other->st_rdev;
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

static gboolean
virCheckpointMirrorCheckNotSource(const struct stat *st,
                                  const gchar *path,
                                  GPtrArray *images,
                                  GError **error)
{
    guint i;

    for (i = 0; images && i < images->len; i++) {
        const gchar *image = g_ptr_array_index(images, i);
        struct stat other;

        if (stat(image, &other) < 0 || !virCheckpointMirrorIsSame(&other, st))
            continue;
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "destination '%s' is the image '%s' of the domain itself", path,
                    image);
        return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointMirrorCheckUnlocked(int fd, const gchar *path, GError **error)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = VIR_CHECKPOINT_QEMU_LOCK_START,
                         .l_len = VIR_CHECKPOINT_QEMU_LOCK_LENGTH};

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) {
        g_autofree gchar *what = g_strdup_printf("test locks of '%s'", path);

        return virCheckpointMirrorSystemError(error, errno, what);
    }
    if (lock.l_type == F_UNLCK)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY,
                "destination '%s' is in use by another process", path);
    return FALSE;
}

/* As stock blockcopy for a reused file without a format: the magic decides. */
static const gchar *
virCheckpointMirrorProbe(int fd)
{
    gchar magic[4] = {0};

    if (pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
        memcmp(magic, "QFI\xfb", sizeof(magic)) == 0)
        return "qcow2";
    return "raw";
}

static virCheckpointJson *
virCheckpointMirrorImageInfo(const gchar *path, const gchar *format, GError **error)
{
    const gchar *argv[] = {"qemu-img",      "info", "-f", format,
                           "--output=json", path,   NULL};
    g_autofree gchar *output = NULL;

    if (!virCheckpointProcessRun(argv, &output, error))
        return NULL;
    return virCheckpointJsonParse(output, -1, error);
}

static gboolean
virCheckpointMirrorCheckImage(const gchar *path,
                              const gchar *format,
                              const virCheckpointMirrorTargetNeeds *needs,
                              gboolean block,
                              GError **error)
{
    /* Devices have the sizes that they can have: the rest of one stays as it is. */
    gboolean mayBeLarger = block && needs->mayBeLarger && g_str_equal(format, "raw");
    g_autoptr(virCheckpointJson) info =
        virCheckpointMirrorImageInfo(path, format, error);
    const gchar *below;
    guint64 sizeBytes = 0;

    if (!info)
        return FALSE;
    below = virCheckpointJsonGetString(info, "backing-filename");
    if (!below)
        below = virCheckpointJsonString(
            virCheckpointJsonPath(info, "format-specific.data.data-file"));
    if (below) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "destination '%s' is not complete in itself: it refers to '%s'",
                    path, below);
        return FALSE;
    }
    if (!virCheckpointJsonGetUint64(info, "virtual-size", &sizeBytes) ||
        (mayBeLarger ? sizeBytes < needs->sizeBytes : sizeBytes != needs->sizeBytes)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "destination '%s' has a size of %" G_GUINT64_FORMAT
                    " bytes, disk '%s' one of %" G_GUINT64_FORMAT " bytes",
                    path, sizeBytes, needs->disk, needs->sizeBytes);
        return FALSE;
    }
    return TRUE;
}

/* qemu-img looked at the path: it must still be the file that was opened. */
static gboolean
virCheckpointMirrorCheckSame(const struct stat *st, const gchar *path, GError **error)
{
    struct stat now;

    if (stat(path, &now) == 0 && virCheckpointMirrorIsSame(&now, st))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY,
                "destination '%s' was replaced while it was looked at", path);
    return FALSE;
}

int
virCheckpointMirrorTargetOpen(const gchar *path,
                              const virCheckpointMirrorTargetNeeds *needs,
                              gchar **format,
                              GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    const gchar *found = needs->format;
    struct stat st;

    fd = virCheckpointMirrorOpenFile(path, needs->disk, &st, error);
    if (fd < 0)
        return -1;
    if (!found)
        found = virCheckpointMirrorProbe(fd);
    if (!virCheckpointMirrorCheckNotSource(&st, path, needs->images, error) ||
        !virCheckpointMirrorCheckUnlocked(fd, path, error) ||
        !virCheckpointMirrorCheckImage(path, found, needs, S_ISBLK(st.st_mode),
                                       error) ||
        !virCheckpointMirrorCheckSame(&st, path, error))
        return -1;
    *format = g_strdup(found);
    return virCheckpointFdSteal(&fd);
}

gboolean
virCheckpointMirrorTargetMayUse(const gchar *path, GPtrArray *images, GError **error)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return virCheckpointMirrorSystemError(error, errno, path);
    return virCheckpointMirrorCheckNotSource(&st, path, images, error);
}

gboolean
virCheckpointMirrorIsBlock(const gchar *path)
{
    struct stat st;

    return path && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

gboolean
virCheckpointMirrorTargetKeepsBitmaps(const gchar *path,
                                      const gchar *format,
                                      gboolean *keeps,
                                      GError **error)
{
    g_autoptr(virCheckpointJson) info = NULL;

    *keeps = FALSE;
    if (!g_str_equal(format, "qcow2"))
        return TRUE;
    if (!(info = virCheckpointMirrorImageInfo(path, format, error)))
        return FALSE;
    *keeps = g_strcmp0(virCheckpointJsonString(
                           virCheckpointJsonPath(info, "format-specific.data.compat")),
                       "0.10") != 0;
    return TRUE;
}

gboolean
virCheckpointMirrorTargetMayCreate(const gchar *path, const gchar *disk, GError **error)
{
    struct stat st;

    if (lstat(path, &st) == 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "external destination file for disk %s already exists and is not a"
                    " block device: %s",
                    disk, path);
        return FALSE;
    }
    if (errno == ENOENT)
        return TRUE;
    return virCheckpointMirrorSystemError(error, errno, path);
}

/* libvirt labels images as it attaches them; until then they are as private as @like.
 */
static gboolean
virCheckpointMirrorCopyOwner(const gchar *path, const gchar *like, GError **error)
{
    struct stat st;

    if (stat(like, &st) == 0 && chown(path, st.st_uid, st.st_gid) == 0 &&
        chmod(path, st.st_mode & 0777) == 0)
        return TRUE;
    return virCheckpointMirrorSystemError(error, errno, path);
}

/* qemu-img makes files with the umask's mode: make it first, for nobody else. */
static gboolean
virCheckpointMirrorReserve(const gchar *path, GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd =
        open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0)
        return TRUE;
    return virCheckpointMirrorSystemError(error, errno, path);
}

static gboolean
virCheckpointMirrorMakeImage(const gchar *const *argv,
                             const gchar *path,
                             const gchar *like,
                             GError **error)
{
    if (!virCheckpointMirrorReserve(path, error))
        return FALSE;
    if (virCheckpointProcessRun(argv, NULL, error) &&
        virCheckpointMirrorCopyOwner(path, like, error) &&
        virCheckpointFileSync(path, error))
        return TRUE;
    (void)unlink(path);
    return FALSE;
}

gboolean
virCheckpointMirrorTargetCreate(const gchar *path,
                                const gchar *like,
                                const gchar *format,
                                guint64 sizeBytes,
                                GError **error)
{
    g_autofree gchar *size = g_strdup_printf("%" G_GUINT64_FORMAT, sizeBytes);
    const gchar *argv[] = {"qemu-img", "create", "-q", "-f", format, path, size, NULL};

    if (virCheckpointMirrorMakeImage(argv, path, like, error))
        return TRUE;
    g_prefix_error(error, "create destination '%s': ", path);
    return FALSE;
}

/* Names (gchar*) of the bitmaps of ours in the image. */
static GPtrArray *
virCheckpointMirrorListBitmaps(const gchar *path, GError **error)
{
    g_autoptr(virCheckpointJson) info =
        virCheckpointMirrorImageInfo(path, "qcow2", error);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    const virCheckpointJson *bitmaps;
    gsize i;

    if (!info)
        return NULL;
    bitmaps = virCheckpointJsonPath(info, "format-specific.data.bitmaps");
    for (i = 0; i < virCheckpointJsonLength(bitmaps); i++) {
        const gchar *name =
            virCheckpointJsonGetString(virCheckpointJsonIndex(bitmaps, i), "name");

        if (name && g_str_has_prefix(name, VIR_CHECKPOINT_OUR_BITMAPS))
            g_ptr_array_add(names, g_strdup(name));
    }
    return g_steal_pointer(&names);
}

/* Deleting bitmaps rewrites the image's directory: on a full file system that can
 * leave an image which no longer opens. */
static gboolean
virCheckpointMirrorCheckRoom(const gchar *path, guint64 bytes, GError **error)
{
    struct statvfs fs;
    guint64 room;

    if (statvfs(path, &fs) < 0)
        return virCheckpointMirrorSystemError(error, errno, path);
    room = (guint64)fs.f_bavail * fs.f_frsize;
    if (room >= bytes)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "the file system of '%s' has %" G_GUINT64_FORMAT
                " bytes left, %" G_GUINT64_FORMAT " are needed",
                path, room, bytes);
    return FALSE;
}

static gboolean
virCheckpointMirrorRemoveBitmaps(const gchar *path, GPtrArray *names, GError **error)
{
    guint i;

    for (i = 0; i < names->len; i++) {
        const gchar *argv[] = {"qemu-img", "bitmap", "--remove", "-f",
                               "qcow2",    path,     NULL,       NULL};

        argv[6] = g_ptr_array_index(names, i);
        if (!virCheckpointProcessRun(argv, NULL, error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointMirrorTargetClean(const gchar *path, const gchar *format, GError **error)
{
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(GPtrArray) left = NULL;

    if (!g_str_equal(format, "qcow2"))
        return TRUE;
    names = virCheckpointMirrorListBitmaps(path, error);
    if (!names)
        return FALSE;
    if (names->len == 0)
        return TRUE;
    if (!virCheckpointMirrorCheckRoom(path, 4 * 1024 * 1024, error) ||
        !virCheckpointMirrorRemoveBitmaps(path, names, error))
        return FALSE;
    left = virCheckpointMirrorListBitmaps(path, error);
    if (!left)
        return FALSE;
    if (left->len == 0)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "bitmap '%s' could not be removed from destination '%s'",
                (const gchar *)g_ptr_array_index(left, 0), path);
    return FALSE;
}

int
virCheckpointMirrorTargetReopen(int fd, const gchar *path, GError **error)
{
    g_autofree gchar *same = g_strdup_printf("/proc/self/fd/%d", fd);
    int other = open(fd < 0 ? path : same, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (other < 0)
        virCheckpointMirrorSystemError(error, errno, path);
    return other;
}

gboolean
virCheckpointMirrorTargetSync(int fd, const gchar *path, GError **error)
{
    g_autofree gchar *what = NULL;

    /* Its times, too: by them it is known as ours later. */
    if (fd < 0)
        return virCheckpointFileSyncTimes(path, error) &&
               virCheckpointFileSyncName(path, error);
    if (fsync(fd) == 0)
        return TRUE;
    what = g_strdup_printf("sync destination '%s'", path);
    return virCheckpointMirrorSystemError(error, errno, what);
}

gchar *
virCheckpointMirrorOverlayPath(const gchar *source,
                               const gchar *directory,
                               const gchar *jobId)
{
    g_autofree gchar *base = g_path_get_basename(source);
    g_autofree gchar *beside = g_path_get_dirname(source);

    return g_strdup_printf("%s/%s.virtcheckpoint-%.8s", directory ? directory : beside,
                           base, jobId);
}

gboolean
virCheckpointMirrorOverlayCreate(const gchar *overlay,
                                 const gchar *source,
                                 const gchar *sourceFormat,
                                 guint64 sizeBytes,
                                 GError **error)
{
    g_autofree gchar *size = g_strdup_printf("%" G_GUINT64_FORMAT, sizeBytes);
    g_autofree gchar *directory = g_path_get_dirname(overlay);
    const gchar *argv[] = {"qemu-img",
                           "create",
                           "-q",
                           "-f",
                           "qcow2",
                           "-o",
                           "extended_l2=on,cluster_size=128k",
                           "-F",
                           sourceFormat,
                           "-b",
                           source,
                           "-u",
                           overlay,
                           size,
                           NULL};

    if (virCheckpointMirrorCheckRoom(
            directory, MIN(sizeBytes, VIR_CHECKPOINT_OVERLAY_ROOM), error) &&
        virCheckpointMirrorMakeImage(argv, overlay, source, error))
        return TRUE;
    g_prefix_error(error, "make the overlay of '%s': ", source);
    return FALSE;
}
