/*
 * checkpoint_tsan.h: what the wrappers of the ThreadSanitizer build share
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#pragma once

#include <glib.h>

#define VIR_CHECKPOINT_EXPORT __attribute__((visibility("default")))

/*
 * VIR_CHECKPOINT_WRAP:
 * @name: a function of GLib, listed in functions.txt
 *
 * The linker turns each call of @name in our objects into one of __wrap_NAME, and gives
 * GLib's own the name __real_NAME.  Both have the type that GLib's header says.
 * Exported, because the linker looks for it on behalf of other libraries, too, to no
 * effect.
 */
#define VIR_CHECKPOINT_WRAP(name)                                                      \
    extern __typeof__(name) __real_##name;                                             \
    extern __typeof__(name) __wrap_##name VIR_CHECKPOINT_EXPORT

/** Tells the sanitizer that the caller's caller looks into container @object. */
void
virCheckpointTsanRead(gconstpointer object);

/** Tells the sanitizer that the caller's caller changes container @object. */
void
virCheckpointTsanWrite(gconstpointer object);
