/*
 * checkpoint_storefolder.c: the contents of one domain's folder, read and remembered
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A domain can have a thousand checkpoints and each operation begins by listing them,
 * so what was parsed is kept, per file, together with the file's identity (inode, size,
 * times).  The store replaces files by rename only; a file that looks the same is the
 * same.  As long as the folder's own times did not move, not even the files are looked
 * at.  Times have the resolution of the kernel's tick, so they alone tell nothing of
 * what changed just before they were read.
 *
 * What is younger a number in the lock's file tells: whoever holds the lock makes it
 * odd before the first change to a record, and even, another one, before giving it
 * back. The same even number means that nobody who follows this changed anything.  It
 * is not synced: who remembers anything lives as long as the page cache does; and a
 * number that is odd, missing or malformed means no more than that one has to look.
 *
 * A file that cannot be read concerns its own checkpoint only: it is remembered as bad,
 * reported once, and tried again at each look, since the cause may be a passing one.
 * Nothing here writes.
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_storepriv.h"
#include "checkpoint_xml.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Longer than a tick of any kernel; a folder changed within this time is read again. */
#define VIR_CHECKPOINT_STORE_RACY_USEC (50 * 1000)
/** What the number in the lock's file takes, its line end included. */
#define NUMBER_BYTES 17

typedef struct virCheckpointStoreStamp {
    guint64 inode;
    gint64 size;
    gint64 modifiedNsec;
    gint64 changedNsec;
} virCheckpointStoreStamp;

typedef struct virCheckpointStoreFile {
    virCheckpointStoreStamp stamp;
    gboolean trusted;            /* @stamp tells all later changes */
    virCheckpointRecord *record; /* one of the three is set */
    virCheckpointJobRecord *job;
    gchar *bad;      /* why it could not be read */
    gboolean unread; /* bad, and what is in it is not known: that may pass */
    guint generation;
} virCheckpointStoreFile;

struct virCheckpointStoreFolder {
    GMutex lock; /* guards all below; nothing else is locked while it is held */
    gchar *path;
    GHashTable *files; /* file name -> virCheckpointStoreFile */
    gboolean trusted;  /* @stamp tells all changes since @files was made */
    virCheckpointStoreStamp stamp;
    guint generation; /* of the last look that read the folder */
    guint parsed;
    guint64 number;      /* of the lock's file, even */
    gboolean counted;    /* as long as the lock's file has @number a file in @files that
                            has its stamp is what it was */
    gboolean pending;    /* @files lacks something that is there, or the reverse */
    gboolean held;       /* this process has the domain's lock */
    gboolean known;      /* held, and @files was what is there at @stamp */
    gboolean begun;      /* held, and the lock's file has an odd number, or none */
    int lockFd;          /* while held */
    GHashTable *journal; /* lines of the journal as far as it was read: a set */
    guint64 journalInode;
    gint64 journalBytes;
};

static void
virCheckpointStoreFileFree(gpointer opaque)
{
    virCheckpointStoreFile *file = opaque;

    virCheckpointRecordFree(file->record);
    virCheckpointJobRecordFree(file->job);
    g_free(file->bad);
    g_free(file);
}

virCheckpointStoreFolder *
virCheckpointStoreFolderNew(const gchar *path)
{
    virCheckpointStoreFolder *folder = g_new0(virCheckpointStoreFolder, 1);

    g_mutex_init(&folder->lock);
    folder->path = g_strdup(path);
    folder->files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                          virCheckpointStoreFileFree);
    folder->lockFd = -1;
    return folder;
}

void
virCheckpointStoreFolderFree(virCheckpointStoreFolder *folder)
{
    if (!folder)
        return;
    g_mutex_clear(&folder->lock);
    g_free(folder->path);
    g_hash_table_unref(folder->files);
    g_clear_pointer(&folder->journal, g_hash_table_unref);
    g_free(folder);
}

static gint64
virCheckpointStoreNsec(const struct timespec *ts)
{
    return (gint64)ts->tv_sec * 1000 * 1000 * 1000 + ts->tv_nsec;
}

/* Returns: FALSE if there is no such file. */
static gboolean
virCheckpointStoreStampOf(const gchar *path, virCheckpointStoreStamp *stamp)
{
    struct stat sb;

    if (stat(path, &sb) < 0)
        return FALSE;
    stamp->inode = sb.st_ino;
    stamp->size = sb.st_size;
    stamp->modifiedNsec = virCheckpointStoreNsec(&sb.st_mtim);
    stamp->changedNsec = virCheckpointStoreNsec(&sb.st_ctim);
    return TRUE;
}

static gboolean
virCheckpointStoreStampEqual(const virCheckpointStoreStamp *a,
                             const virCheckpointStoreStamp *b)
{
    return a->inode == b->inode && a->size == b->size &&
           a->modifiedNsec == b->modifiedNsec && a->changedNsec == b->changedNsec;
}

/* TRUE if a change after now cannot leave @stamp as it is.  To be asked before reading.
 */
static gboolean
virCheckpointStoreStampSettled(const virCheckpointStoreStamp *stamp)
{
    const gint64 newest = MAX(stamp->modifiedNsec, stamp->changedNsec) / 1000;

    return newest + VIR_CHECKPOINT_STORE_RACY_USEC < g_get_real_time();
}

/* The number in the lock's file: 16 hex digits and a line end.  FALSE: none, or odd. */
static gboolean
virCheckpointStoreReadNumber(int fd, guint64 *number)
{
    gchar text[NUMBER_BYTES + 1] = "";
    guint64 value;

    if (fd < 0 || pread(fd, text, NUMBER_BYTES, 0) != NUMBER_BYTES ||
        strspn(text, "0123456789abcdef") != NUMBER_BYTES - 1 ||
        text[NUMBER_BYTES - 1] != '\n')
        return FALSE;
    value = g_ascii_strtoull(text, NULL, 16);
    if (value & 1)
        return FALSE;
    *number = value;
    return TRUE;
}

/* What cannot be written makes others look, as an old number does not. */
static void
virCheckpointStoreWriteNumber(virCheckpointStoreFolder *folder, guint64 number)
{
    g_autofree gchar *text = g_strdup_printf("%016" G_GINT64_MODIFIER "x\n", number);

    if (pwrite(folder->lockFd, text, NUMBER_BYTES, 0) != NUMBER_BYTES &&
        ftruncate(folder->lockFd, 0) < 0)
        g_warning("write '%s/" VIR_CHECKPOINT_STORE_LOCK "': %s", folder->path,
                  g_strerror(errno));
}

/* TRUE if nobody changed a record since @files was read; *@number: what to remember. */
static gboolean
virCheckpointStoreFolderIsCounted(virCheckpointStoreFolder *folder,
                                  gboolean *even,
                                  guint64 *number)
{
    g_autofree gchar *path = NULL;
    VIR_CHECKPOINT_AUTOFD int fd = -1;

    *even = TRUE;
    *number = folder->number;
    /* The number is ours as long as the lock is. */
    if (folder->held)
        return folder->counted;
    path = g_build_filename(folder->path, VIR_CHECKPOINT_STORE_LOCK, NULL);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    *even = virCheckpointStoreReadNumber(fd, number);
    return *even && folder->counted && *number == folder->number;
}

/* The file must be what its name says: "<id><suffix>". */
static gboolean
virCheckpointStoreCheckId(const gchar *name,
                          const gchar *id,
                          const gchar *suffix,
                          GError **error)
{
    g_autofree gchar *expected = g_strconcat(id, suffix, NULL);

    if (g_str_equal(name, expected))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                "record has id '%s', which is not the file's name", id);
    return FALSE;
}

static gboolean
virCheckpointStoreFileParse(virCheckpointStoreFile *file,
                            const gchar *name,
                            const gchar *path,
                            GError **error)
{
    const gboolean isJob = g_str_has_suffix(name, VIR_CHECKPOINT_STORE_JOB_SUFFIX);
    g_autofree gchar *text =
        virCheckpointFileRead(path, VIR_CHECKPOINT_XML_MAX_BYTES, error);
    g_autoptr(virCheckpointRecord) record = NULL;
    g_autoptr(virCheckpointJobRecord) job = NULL;

    if (!text) {
        file->unread =
            !g_error_matches(*error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
        return FALSE;
    }
    if (isJob) {
        job = virCheckpointJobRecordParse(text, error);
        if (!job || !virCheckpointStoreCheckId(name, job->id,
                                               VIR_CHECKPOINT_STORE_JOB_SUFFIX, error))
            return FALSE;
        file->job = g_steal_pointer(&job);
        return TRUE;
    }
    record = virCheckpointRecordParse(text, error);
    if (!record || !virCheckpointStoreCheckId(
                       name, record->id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, error))
        return FALSE;
    file->record = g_steal_pointer(&record);
    return TRUE;
}

/* Looks at one file of the folder; a file that vanished meanwhile is not there.
 * @counted: nobody changed a record since the last look. */
static void
virCheckpointStoreFolderVisit(virCheckpointStoreFolder *folder,
                              const gchar *name,
                              gboolean counted)
{
    g_autofree gchar *path = g_build_filename(folder->path, name, NULL);
    virCheckpointStoreFile *old = g_hash_table_lookup(folder->files, name);
    virCheckpointStoreFile *file = NULL;
    virCheckpointStoreStamp stamp = {0};
    g_autoptr(GError) error = NULL;

    if (!virCheckpointStoreStampOf(path, &stamp) && errno == ENOENT)
        return;
    if (old && !old->bad && (old->trusted || counted) &&
        virCheckpointStoreStampEqual(&old->stamp, &stamp)) {
        old->trusted = old->trusted || virCheckpointStoreStampSettled(&stamp);
        old->generation = folder->generation;
        return;
    }
    file = g_new0(virCheckpointStoreFile, 1);
    file->stamp = stamp;
    file->generation = folder->generation;
    file->trusted = virCheckpointStoreStampSettled(&stamp);
    folder->parsed++;
    if (!virCheckpointStoreFileParse(file, name, path, &error)) {
        /* Removed between the two looks, or replaced: then it is read next time. */
        if (!virCheckpointStoreStampOf(path, &stamp) && errno == ENOENT) {
            virCheckpointStoreFileFree(file);
            return;
        }
        if (!old || g_strcmp0(old->bad, error->message) != 0)
            g_warning("ignoring file '%s': %s", path, error->message);
        file->bad = g_strdup(error->message);
        file->trusted = FALSE;
    }
    g_hash_table_insert(folder->files, g_strdup(name), file);
}

static gboolean
virCheckpointStoreFileIsOld(gpointer key, gpointer value, gpointer opaque)
{
    const virCheckpointStoreFile *file = value;

    return file->generation != *(guint *)opaque;
}

static gboolean
virCheckpointStoreFolderHasBad(virCheckpointStoreFolder *folder)
{
    GHashTableIter iter;
    gpointer value = NULL;

    g_hash_table_iter_init(&iter, folder->files);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((virCheckpointStoreFile *)value)->bad)
            return TRUE;
    }
    return FALSE;
}

/* There is no such folder. */
static void
virCheckpointStoreFolderEmpty(virCheckpointStoreFolder *folder)
{
    g_hash_table_remove_all(folder->files);
    folder->trusted = FALSE;
    folder->counted = FALSE;
    folder->pending = FALSE;
    folder->known = FALSE;
}

/* Brings @files up to date. */
static gboolean
virCheckpointStoreFolderRefresh(virCheckpointStoreFolder *folder, GError **error)
{
    virCheckpointStoreStamp stamp = {0};
    gboolean settled = FALSE;
    gboolean counted = FALSE;
    gboolean even = FALSE;
    guint64 number = 0;
    g_autoptr(GDir) dir = NULL;
    g_autoptr(GError) local = NULL;
    const gchar *name = NULL;

    /* The stamp is taken first: what changes while we read is seen next time. */
    if (!virCheckpointStoreStampOf(folder->path, &stamp) && errno == ENOENT) {
        virCheckpointStoreFolderEmpty(folder);
        return TRUE;
    }
    if ((folder->trusted || folder->known) && !folder->pending &&
        virCheckpointStoreStampEqual(&folder->stamp, &stamp))
        return TRUE;
    counted = virCheckpointStoreFolderIsCounted(folder, &even, &number);
    if (counted && !folder->pending &&
        virCheckpointStoreStampEqual(&folder->stamp, &stamp)) {
        folder->known = folder->held;
        return TRUE;
    }

    settled = virCheckpointStoreStampSettled(&stamp);
    dir = g_dir_open(folder->path, 0, &local);
    if (!dir) {
        if (g_error_matches(local, G_FILE_ERROR, G_FILE_ERROR_NOENT)) {
            virCheckpointStoreFolderEmpty(folder);
            return TRUE;
        }
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "read '%s': %s", folder->path, local->message);
        return FALSE;
    }
    folder->generation++;
    while ((name = g_dir_read_name(dir))) {
        if (g_str_has_suffix(name, VIR_CHECKPOINT_STORE_RECORD_SUFFIX) ||
            g_str_has_suffix(name, VIR_CHECKPOINT_STORE_JOB_SUFFIX))
            virCheckpointStoreFolderVisit(folder, name, counted);
    }
    g_hash_table_foreach_remove(folder->files, virCheckpointStoreFileIsOld,
                                &folder->generation);
    folder->stamp = stamp;
    folder->trusted = settled && !virCheckpointStoreFolderHasBad(folder);
    folder->known = folder->held && !virCheckpointStoreFolderHasBad(folder);
    folder->pending = virCheckpointStoreFolderHasBad(folder);
    folder->counted = even;
    folder->number = number;
    return TRUE;
}

static void
virCheckpointStoreFolderCollect(virCheckpointStoreFolder *folder,
                                guint flags,
                                virCheckpointStoreLook *look)
{
    GHashTableIter iter;
    gpointer key = NULL;
    gpointer value = NULL;

    if (flags & VIR_CHECKPOINT_STORE_LOOK_RECORDS)
        look->records =
            g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointRecordFree);
    if (flags & VIR_CHECKPOINT_STORE_LOOK_JOBS)
        look->jobs =
            g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointJobRecordFree);
    if (flags & VIR_CHECKPOINT_STORE_LOOK_BAD)
        look->bad = g_ptr_array_new_with_free_func(g_free);

    g_hash_table_iter_init(&iter, folder->files);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        const virCheckpointStoreFile *file = value;

        if (file->record && look->records)
            g_ptr_array_add(look->records, flags & VIR_CHECKPOINT_STORE_LOOK_SHARED
                                               ? virCheckpointRecordRef(file->record)
                                               : virCheckpointRecordCopy(file->record));
        if (file->job && look->jobs)
            g_ptr_array_add(look->jobs, virCheckpointJobRecordCopy(file->job));
        if (file->bad && look->bad)
            g_ptr_array_add(look->bad, g_strdup(key));
        if (file->unread && (flags & VIR_CHECKPOINT_STORE_LOOK_UNREAD) && !look->unread)
            look->unread = g_strdup(file->bad);
    }
}

gboolean
virCheckpointStoreFolderLook(virCheckpointStoreFolder *folder,
                             guint flags,
                             virCheckpointStoreLook *look,
                             GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    if (!virCheckpointStoreFolderRefresh(folder, error))
        return FALSE;
    virCheckpointStoreFolderCollect(folder, flags, look);
    return TRUE;
}

gboolean
virCheckpointStoreFolderFind(virCheckpointStoreFolder *folder,
                             const gchar *name,
                             virCheckpointRecord **record,
                             gboolean *unready,
                             GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);
    GHashTableIter iter;
    gpointer value = NULL;

    if (!virCheckpointStoreFolderRefresh(folder, error))
        return FALSE;
    *record = NULL;
    *unready = FALSE;
    g_hash_table_iter_init(&iter, folder->files);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const virCheckpointRecord *here = ((virCheckpointStoreFile *)value)->record;

        if (!here)
            continue;
        *unready = *unready || here->state != VIR_CHECKPOINT_RECORD_READY;
        if (!*record && g_str_equal(here->def->name, name))
            *record = virCheckpointRecordCopy(here);
    }
    return TRUE;
}

void
virCheckpointStoreFolderTake(virCheckpointStoreFolder *folder, int lockFd)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);
    guint64 number = 0;

    folder->held = TRUE;
    folder->known = FALSE;
    folder->lockFd = lockFd;
    folder->begun = !virCheckpointStoreReadNumber(lockFd, &number);
    /* Any even number that nobody has seen in this place will do. */
    if (folder->begun)
        number = ((guint64)g_random_int() << 32 | g_random_int()) & ~(guint64)1;
    folder->counted = folder->counted && !folder->begun && number == folder->number;
    folder->number = number;
}

void
virCheckpointStoreFolderGive(virCheckpointStoreFolder *folder)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    if (folder->begun) {
        folder->number += 2;
        virCheckpointStoreWriteNumber(folder, folder->number);
    }
    folder->held = FALSE;
    folder->known = FALSE;
    folder->begun = FALSE;
    folder->lockFd = -1;
}

void
virCheckpointStoreFolderBegin(virCheckpointStoreFolder *folder)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    if (!folder->begun)
        virCheckpointStoreWriteNumber(folder, folder->number + 1);
    folder->begun = TRUE;
}

/* What was changed is known: the folder's time is now this. */
static void
virCheckpointStoreFolderStamp(virCheckpointStoreFolder *folder)
{
    folder->trusted = FALSE;
    if (folder->known && !virCheckpointStoreStampOf(folder->path, &folder->stamp))
        folder->known = FALSE;
}

void
virCheckpointStoreFolderTouched(virCheckpointStoreFolder *folder)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    virCheckpointStoreFolderStamp(folder);
}

void
virCheckpointStoreFolderForget(virCheckpointStoreFolder *folder, const gchar *name)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    if (name)
        g_hash_table_remove(folder->files, name);
    folder->pending = TRUE;
}

void
virCheckpointStoreFolderChanged(virCheckpointStoreFolder *folder,
                                const gchar *name,
                                const virCheckpointRecord *record,
                                gboolean sure)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);
    g_autofree gchar *path = g_build_filename(folder->path, name, NULL);
    virCheckpointStoreFile *file = NULL;

    folder->trusted = FALSE;
    g_hash_table_remove(folder->files, name);
    if (!sure || !folder->known) {
        folder->pending = TRUE;
        return;
    }
    if (record) {
        file = g_new0(virCheckpointStoreFile, 1);
        file->record = virCheckpointRecordCopy(record);
        file->generation = folder->generation;
        g_hash_table_insert(folder->files, g_strdup(name), file);
        if (!virCheckpointStoreStampOf(path, &file->stamp))
            folder->pending = TRUE;
    }
    virCheckpointStoreFolderStamp(folder);
}

/* Reads what was appended since the last time, as far as its lines are whole. */
static void
virCheckpointStoreJournalRead(virCheckpointStoreFolder *folder, const gchar *path)
{
    VIR_CHECKPOINT_AUTOFD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    g_autofree gchar *text = NULL;
    gchar *line;
    gchar *end;
    struct stat sb = {0};
    gssize got = 0;

    if (fd >= 0 && fstat(fd, &sb) < 0)
        sb.st_size = 0;
    if (!folder->journal || sb.st_ino != folder->journalInode ||
        sb.st_size < folder->journalBytes) {
        g_clear_pointer(&folder->journal, g_hash_table_unref);
        folder->journal = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        folder->journalInode = sb.st_ino;
        folder->journalBytes = 0;
    }
    if (sb.st_size <= folder->journalBytes)
        return;
    text = g_malloc((gsize)(sb.st_size - folder->journalBytes));
    got = pread(fd, text, (gsize)(sb.st_size - folder->journalBytes),
                folder->journalBytes);
    for (line = text; got > 0 && (end = memchr(line, '\n', (gsize)got));
         line = end + 1) {
        g_hash_table_add(folder->journal, g_strndup(line, (gsize)(end - line)));
        folder->journalBytes += end + 1 - line;
        got -= end + 1 - line;
    }
}

gboolean
virCheckpointStoreFolderJournalHas(virCheckpointStoreFolder *folder,
                                   const gchar *path,
                                   const gchar *line)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    virCheckpointStoreJournalRead(folder, path);
    return g_hash_table_contains(folder->journal, line);
}

guint
virCheckpointStoreFolderParsed(virCheckpointStoreFolder *folder)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&folder->lock);

    return folder->parsed;
}
