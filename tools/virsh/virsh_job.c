/*
 * virsh_job.c: waiting for a block copy, and ending it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A job is followed by its events, because only they tell how it ended; its information
 * is polled for the progress and to notice a dead connection.  Where events cannot be
 * had, a job that vanishes has ended and one with nothing left to copy is ready.
 *
 * A job with the "finish" parameter ends by itself and never gets ready; nothing is
 * sent to it then.  Everything else is as in stock: READY, then abort with or without
 * PIVOT, or the job is left mirroring.
 */

#include "config.h"

#include "virsh_job.h"

#define VIRSH_POLL_MS 500
/** How long the last event may take after its job cannot be asked about any more. */
#define VIRSH_GONE_MS 2000
/* Polls that find no job before an event that never came is given up. */
#define VIRSH_GONE_POLLS 20
/* Polls at 100 % before a job without events counts as ready. */
#define VIRSH_FULL_POLLS 5

typedef enum {
    VIR_CHECKPOINT_VIRSH_OUTCOME_NONE, /* go on */
    VIR_CHECKPOINT_VIRSH_OUTCOME_ERROR,
    VIR_CHECKPOINT_VIRSH_OUTCOME_ABORTED,
    VIR_CHECKPOINT_VIRSH_OUTCOME_FAILED,
    VIR_CHECKPOINT_VIRSH_OUTCOME_READY,
    VIR_CHECKPOINT_VIRSH_OUTCOME_COMPLETED,
    VIR_CHECKPOINT_VIRSH_OUTCOME_LAST
} virCheckpointVirshOutcome;

typedef struct {
    const virCheckpointVirshJobOps *ops;
    gpointer opaque;
    const virCheckpointVirshUi *ui;
    const gchar *path;
    guint flags;
    gint64 deadline; /* 0: none */
    virDomainBlockJobInfo last;
    gboolean seen;    /* progress has been shown: */
    guint64 firstCur; /* ... what was there at first, */
    gint64 firstMs;   /* ... and when */
    guint gone;       /* polls in a row that found no job */
    guint full;       /* polls in a row that found nothing left to copy */
} virCheckpointVirshJob;

static virCheckpointVirshOutcome
virCheckpointVirshJobByEvent(gint status)
{
    switch (status) {
    case VIR_DOMAIN_BLOCK_JOB_COMPLETED:
        return VIR_CHECKPOINT_VIRSH_OUTCOME_COMPLETED;
    case VIR_DOMAIN_BLOCK_JOB_FAILED:
        return VIR_CHECKPOINT_VIRSH_OUTCOME_FAILED;
    case VIR_DOMAIN_BLOCK_JOB_CANCELED:
        return VIR_CHECKPOINT_VIRSH_OUTCOME_ABORTED;
    case VIR_DOMAIN_BLOCK_JOB_READY:
        return VIR_CHECKPOINT_VIRSH_OUTCOME_READY;
    default:
        return VIR_CHECKPOINT_VIRSH_OUTCOME_NONE;
    }
}

/* What a poll tells where events do not. */
static virCheckpointVirshOutcome
virCheckpointVirshJobByPoll(virCheckpointVirshJob *job,
                            gint found,
                            const virDomainBlockJobInfo *info)
{
    gboolean events = (job->flags & VIR_CHECKPOINT_VIRSH_JOB_EVENTS) != 0;

    if (found == 0) {
        if (!events)
            return VIR_CHECKPOINT_VIRSH_OUTCOME_COMPLETED;
        if (++job->gone < VIRSH_GONE_POLLS)
            return VIR_CHECKPOINT_VIRSH_OUTCOME_NONE;
        virCheckpointVirshUiError(
            job->ui, "job for disk %s is gone, its end was not reported", job->path);
        return VIR_CHECKPOINT_VIRSH_OUTCOME_ERROR;
    }
    job->gone = 0;
    job->full = info->end > 0 && info->cur == info->end ? job->full + 1 : 0;
    if (!events && !(job->flags & VIR_CHECKPOINT_VIRSH_JOB_FINISH) &&
        job->full >= VIRSH_FULL_POLLS)
        return VIR_CHECKPOINT_VIRSH_OUTCOME_READY;
    return VIR_CHECKPOINT_VIRSH_OUTCOME_NONE;
}

/* The rate is that since the first look: it does not jump with each. */
static void
virCheckpointVirshJobProgress(virCheckpointVirshJob *job, guint64 cur, guint64 end)
{
    virCheckpointVirshProgress progress = {cur, end, 0};
    gint64 nowMs = job->ops->now(job->opaque);

    if (!job->seen) {
        job->seen = TRUE;
        job->firstCur = cur;
        job->firstMs = nowMs;
    }
    if (nowMs > job->firstMs && cur > job->firstCur)
        progress.rate = (guint64)((gdouble)(cur - job->firstCur) * 1000.0 /
                                  (gdouble)(nowMs - job->firstMs));
    virCheckpointVirshUiProgress(job->ui, &progress);
}

static void
virCheckpointVirshJobShow(virCheckpointVirshJob *job, const virDomainBlockJobInfo *info)
{
    /* 100 % is for the end, once. */
    if ((job->flags & VIR_CHECKPOINT_VIRSH_JOB_VERBOSE) && info->cur < info->end &&
        (info->cur != job->last.cur || info->end != job->last.end))
        virCheckpointVirshJobProgress(job, info->cur, info->end);
    job->last = *info;
}

static virCheckpointVirshOutcome
virCheckpointVirshJobStop(virCheckpointVirshJob *job)
{
    guint flags = 0;

    if (job->flags & VIR_CHECKPOINT_VIRSH_JOB_ASYNC)
        flags |= VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC;
    if (job->ops->abort(job->opaque, flags) < 0) {
        virCheckpointVirshUiError(job->ui, "failed to abort job for disk %s",
                                  job->path);
        return VIR_CHECKPOINT_VIRSH_OUTCOME_ERROR;
    }
    return VIR_CHECKPOINT_VIRSH_OUTCOME_ABORTED;
}

static virCheckpointVirshOutcome
virCheckpointVirshJobStep(virCheckpointVirshJob *job)
{
    virDomainBlockJobInfo info = {0};
    virCheckpointVirshOutcome outcome;
    gint found;

    /* Asked before the event is looked at: a job that is gone by then has sent it. */
    found = job->ops->info(job->opaque, &info);
    outcome = virCheckpointVirshJobByEvent(job->ops->event(job->opaque, 0));
    if (outcome != VIR_CHECKPOINT_VIRSH_OUTCOME_NONE)
        return outcome;
    /* Of a guest that is off there is nothing to ask about once the job has ended. */
    if (found < 0) {
        outcome =
            virCheckpointVirshJobByEvent(job->ops->event(job->opaque, VIRSH_GONE_MS));
        if (outcome != VIR_CHECKPOINT_VIRSH_OUTCOME_NONE)
            return outcome;
        virCheckpointVirshUiError(job->ui, "failed to query job for disk %s",
                                  job->path);
        return VIR_CHECKPOINT_VIRSH_OUTCOME_ERROR;
    }
    outcome = virCheckpointVirshJobByPoll(job, found, &info);
    if (outcome != VIR_CHECKPOINT_VIRSH_OUTCOME_NONE)
        return outcome;
    if (found > 0)
        virCheckpointVirshJobShow(job, &info);
    if (job->ops->interrupted(job->opaque) ||
        (job->deadline && job->ops->now(job->opaque) >= job->deadline))
        return virCheckpointVirshJobStop(job);
    job->ops->event(job->opaque, VIRSH_POLL_MS);
    return VIR_CHECKPOINT_VIRSH_OUTCOME_NONE;
}

static virCheckpointVirshOutcome
virCheckpointVirshJobWait(virCheckpointVirshJob *job)
{
    virCheckpointVirshOutcome outcome = VIR_CHECKPOINT_VIRSH_OUTCOME_NONE;

    while (outcome == VIR_CHECKPOINT_VIRSH_OUTCOME_NONE)
        outcome = virCheckpointVirshJobStep(job);
    if ((job->flags & VIR_CHECKPOINT_VIRSH_JOB_VERBOSE) &&
        (outcome == VIR_CHECKPOINT_VIRSH_OUTCOME_READY ||
         outcome == VIR_CHECKPOINT_VIRSH_OUTCOME_COMPLETED))
        virCheckpointVirshJobProgress(job, MAX(job->last.end, 1),
                                      MAX(job->last.end, 1));
    return outcome;
}

/* The copy is ready or complete: what the user wants now. */
static gboolean
virCheckpointVirshJobEnd(virCheckpointVirshJob *job, virCheckpointVirshOutcome outcome)
{
    gboolean completed = outcome == VIR_CHECKPOINT_VIRSH_OUTCOME_COMPLETED;

    if (job->flags & VIR_CHECKPOINT_VIRSH_JOB_PIVOT) {
        if (job->ops->abort(job->opaque, VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) < 0) {
            virCheckpointVirshUiError(job->ui, "failed to pivot job for disk %s",
                                      job->path);
            return FALSE;
        }
        virCheckpointVirshUiExtra(job->ui, "\nSuccessfully pivoted");
    } else if (job->flags & VIR_CHECKPOINT_VIRSH_JOB_FINISH) {
        if (!completed && job->ops->abort(job->opaque, 0) < 0) {
            virCheckpointVirshUiError(job->ui, "failed to finish job for disk %s",
                                      job->path);
            return FALSE;
        }
        virCheckpointVirshUiExtra(job->ui, "\nSuccessfully copied");
    } else {
        virCheckpointVirshUiExtra(job->ui, "\nNow in mirroring phase");
    }
    return TRUE;
}

/* Events do not say it. */
static void
virCheckpointVirshJobWhy(const virCheckpointVirshJob *job)
{
    g_autofree gchar *why = job->ops->why(job->opaque);

    if (why)
        virCheckpointVirshUiError(job->ui, "%s", why);
}

gboolean
virCheckpointVirshJobFollow(const virCheckpointVirshJobOps *ops,
                            gpointer opaque,
                            const virCheckpointVirshUi *ui,
                            const gchar *path,
                            guint flags,
                            guint timeoutMs)
{
    virCheckpointVirshJob job = {
        .ops = ops, .opaque = opaque, .ui = ui, .path = path, .flags = flags};
    virCheckpointVirshOutcome outcome;

    if (!(flags & VIR_CHECKPOINT_VIRSH_JOB_WAIT)) {
        virCheckpointVirshUiExtra(ui, "Block Copy started");
        return TRUE;
    }
    if (timeoutMs)
        job.deadline = ops->now(opaque) + timeoutMs;
    switch ((outcome = virCheckpointVirshJobWait(&job))) {
    case VIR_CHECKPOINT_VIRSH_OUTCOME_ABORTED:
        virCheckpointVirshUiExtra(ui, "\nCopy aborted");
        return FALSE;
    case VIR_CHECKPOINT_VIRSH_OUTCOME_FAILED:
        virCheckpointVirshUiExtra(ui, "\nCopy failed");
        virCheckpointVirshJobWhy(&job);
        return FALSE;
    case VIR_CHECKPOINT_VIRSH_OUTCOME_READY:
    case VIR_CHECKPOINT_VIRSH_OUTCOME_COMPLETED:
        return virCheckpointVirshJobEnd(&job, outcome);
    case VIR_CHECKPOINT_VIRSH_OUTCOME_NONE:
    case VIR_CHECKPOINT_VIRSH_OUTCOME_ERROR:
    case VIR_CHECKPOINT_VIRSH_OUTCOME_LAST:
        break;
    }
    return FALSE;
}
